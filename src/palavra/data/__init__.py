"""From people's files to batches of tokens: sources, shards, packing, loader."""
