"""`make bench-curves`: validation bits per byte against training time, of recipes on the same text in the same order."""
