"""Planning of a run: sizes, steps, time and memory."""
