"""What a run will be: sizes, steps, time and memory."""
