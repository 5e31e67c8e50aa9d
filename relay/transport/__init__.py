"""Connections: HTTP routes, WebSockets, logins, requests and their replies, limits before the login."""
