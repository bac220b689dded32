"""The last layers of task heads."""
