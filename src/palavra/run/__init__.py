"""The wiring: what the commands and the Python functions do, built from the rooms below."""
