"""The net: damaged inputs for every reader, and a stop at every write. `python -m fuzz` runs it at length."""
