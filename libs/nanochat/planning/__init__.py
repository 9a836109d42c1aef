"""A recipe and the hardware: which stages run, what they take and what must be there first. Imports no torch."""
