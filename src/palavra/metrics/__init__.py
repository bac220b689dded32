"""Scores and their intervals, in pure numpy."""
