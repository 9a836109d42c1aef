"""Reinforcement learning on a task whose answers can be judged: rollouts and the training loop."""
