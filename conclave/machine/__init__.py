"""What a user's machine keeps: its key and its configuration."""
