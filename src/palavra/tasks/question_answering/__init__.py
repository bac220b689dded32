"""Extractive question answering, with or without unanswerable questions."""
