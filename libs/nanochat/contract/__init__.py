"""The interface between the model and the platform: stage specification, events, artifacts, exit codes, stop requests.

Imports no torch.
"""
