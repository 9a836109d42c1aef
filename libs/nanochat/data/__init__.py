"""Text in, rows of tokens out: shards, packing and loaders."""
