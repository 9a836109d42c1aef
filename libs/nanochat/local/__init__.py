"""A whole recipe on this machine with no service at all."""
