"""`make bench-loader`: how far the loading of text keeps ahead of a training step, for both packings."""
