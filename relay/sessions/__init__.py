"""Logged-in connections of this node."""
