"""The code that an exported folder carries when `NanoChatForCausalLM` cannot express its model. `hf.py` copies these files.

They need torch and transformers only, from version 5.0 on, and nothing of this project.
"""
