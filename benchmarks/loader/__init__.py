"""`make bench-loader`: how many times faster text is loaded than a training step uses it."""
