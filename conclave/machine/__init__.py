"""The files on a user's machine: its key and its configuration."""
