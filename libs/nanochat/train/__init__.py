"""Training: the loop that base, mid and SFT share, and its checkpoints."""
