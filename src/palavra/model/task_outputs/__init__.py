"""Output layers of task heads."""
