"""The relay: one node of a cluster. Sessions connect here, everything shared lives in Redis."""
