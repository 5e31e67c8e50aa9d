"""The protocol versions: each a codec and a table of commands over the same services."""
