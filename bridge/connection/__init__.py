"""The bridge's connections to relays."""
