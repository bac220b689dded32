"""Pretraining: from text to a model directory."""
