"""The protocol versions as codecs, and one table of the operations that both have."""
