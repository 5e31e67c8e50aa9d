"""The client's side of a connection: dial, log in, request, receive events, reconnect."""
