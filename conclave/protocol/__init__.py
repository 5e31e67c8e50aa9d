"""The protocol: requests, results and events, and how each version encodes them."""
