"""The tables of stages and metrics, for clients that show runs."""
