"""Loads for relays: sessions in processes of their own, and what the servers spend on them."""
