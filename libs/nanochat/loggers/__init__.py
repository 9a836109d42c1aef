"""Copies what a run records to Weights & Biases, Trackio and TensorBoard. Imports no torch; each package is optional."""
