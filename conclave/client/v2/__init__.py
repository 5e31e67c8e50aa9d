"""The client's side of protocol v2."""
