"""Membership of the node in its cluster, and what nodes announce to each other."""
