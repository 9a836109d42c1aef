"""Benchmarks: `python -m benchmarks.<name> --help`; docs/benchmarks.md has the recorded results."""
