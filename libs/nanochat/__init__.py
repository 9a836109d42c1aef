"""The language model: text in, chat model out. Knows no HTTP server, no SQL, no Celery."""
