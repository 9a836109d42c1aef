"""Triton kernels of inference: what one step of decoding and one pass over prompts consist of. Needs Triton, so import it late."""
