"""The operations of a session: their checks and their effects, independent of the protocol version."""
