"""The bridge as a program: its parts put together, and the owner's configuration as it changes."""
