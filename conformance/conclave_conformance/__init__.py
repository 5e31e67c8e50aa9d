"""Whether a server speaks protocol v2 as docs/protocol.md has it: checks that run against any URL.

They judge by the page and not by the product: the client here is its own, with a JSON library and a WebSocket.
"""
