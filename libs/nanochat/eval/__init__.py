"""Evaluate models: bits per byte, CORE, chat tasks, samples, and the report."""
