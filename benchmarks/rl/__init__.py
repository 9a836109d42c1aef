"""`make bench-rl`: how fast reinforcement learning samples answers, and where a step spends its time."""
