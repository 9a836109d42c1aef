"""The ledger: runs, stages, attempts, events, metrics and checkpoints in Postgres. Knows no torch and no HTTP.

Functions take a `Session` and never commit: the caller owns the transaction. Whatever writes to a run locks the run's
row first (`transitions.lock_run`), so that a run's status is derived, and its events are numbered, in commit order.
"""
