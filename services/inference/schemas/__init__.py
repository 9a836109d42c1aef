"""The bodies of requests. A field of a wrong type or out of range is refused by name; nothing is converted silently."""
