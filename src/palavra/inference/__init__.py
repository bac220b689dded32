"""Using a model: evaluate, fill, embed."""
