"""Objectives: prepare a batch, name the head, give the loss."""
