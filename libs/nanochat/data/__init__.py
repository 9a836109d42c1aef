"""From text to batches of tokens: fetching, shards, packing and loaders."""
