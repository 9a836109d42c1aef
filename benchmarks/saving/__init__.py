"""`make bench-saving`: how long a checkpoint makes the training wait."""
