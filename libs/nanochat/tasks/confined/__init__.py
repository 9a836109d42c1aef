"""What runs on the inside of `tasks/sandbox.py`: its processes and the walls around them. Standard library only."""
