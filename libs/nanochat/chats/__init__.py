"""A user's own conversations: check a file, look at what is trained, write a persona. No torch, no service."""
