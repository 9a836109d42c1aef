"""Models as folders for other programs, and such folders as checkpoints.

`hf.write(model, tokenizer, folder)` writes what `transformers` loads. `python -m nanochat.interchange` exports and imports; the
commands `nanochat export` and `nanochat import` start it. docs/interchange.md is the guide.
"""
