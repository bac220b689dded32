"""Small models, texts, runs and reports that many tests build on."""
