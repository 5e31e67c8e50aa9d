"""Checks of any server against docs/protocol.md, the page of protocol v2.

They judge by the page and not by the product: the client here is its own, with a JSON library and a WebSocket.
"""
