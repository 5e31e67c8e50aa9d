"""What the relay does for a session: the rules of the house, above Redis and below the wire."""
