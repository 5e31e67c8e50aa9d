"""Child processes: when one that died is started again, and how one is ended."""
