"""The worker: a Celery app that is woken for a stage, claims it and supervises its processes. Imports no torch."""
