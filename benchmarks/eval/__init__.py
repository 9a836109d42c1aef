"""`make bench-eval`: how fast CORE and the chat tasks are evaluated, beside a loop that takes one item at a time."""
