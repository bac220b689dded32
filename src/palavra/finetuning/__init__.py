"""Labelled examples to a model directory."""
