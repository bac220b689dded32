"""The Python functions, named as the commands."""
