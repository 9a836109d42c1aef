"""Runs or plans a whole recipe on this machine, without any service."""
