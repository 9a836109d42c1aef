"""Training: one loop for base, mid and SFT, its checkpoints, and reinforcement learning."""
