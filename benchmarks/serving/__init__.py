"""`make bench-serving`: the inference service under load, from a client in another process."""
