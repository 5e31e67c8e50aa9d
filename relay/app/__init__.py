"""One node: its configuration, the objects it consists of, its start and its end."""
