"""`make bench-train`: training speed and memory of one GPU or several, beside a plain configuration in the same run."""
