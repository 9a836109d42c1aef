"""`make bench-tokenizer`: training and encoding beside the libraries of PyPI, on the same text."""
