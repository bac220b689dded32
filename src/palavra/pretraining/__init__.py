"""Text to a model directory."""
