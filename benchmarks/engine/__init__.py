"""`make bench-engine`: how fast `nanochat.engine` reads prompts and generates tokens, without a server."""
