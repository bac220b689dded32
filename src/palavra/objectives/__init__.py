"""Objectives: the labels of a batch, and the loss."""
