"""Sockets: HTTP routes, the WebSocket upgrade, frames in, an outbox of frames out, limits before the login."""
