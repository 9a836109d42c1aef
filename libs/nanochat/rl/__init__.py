"""Reinforcement learning on a task with a right answer: rollouts and the training loop."""
