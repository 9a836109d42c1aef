"""The ledger: runs, stages, attempts, events, metrics and checkpoints in Postgres. Imports neither torch nor HTTP.

Functions take a `Session` and never commit: the caller owns the transaction. Code that changes a run first locks its row through
`transitions.gate`. A run's status is therefore derived, and its events are numbered, in commit order.
"""
