"""The worker: a Celery app that receives a wake-up call for a stage, claims it and supervises its processes. Imports no torch."""
