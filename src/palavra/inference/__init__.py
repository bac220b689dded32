"""Models ready for use: fill, embed, score, generate, predict, evaluate."""
