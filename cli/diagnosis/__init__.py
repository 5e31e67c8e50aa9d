"""`conclave doctor`: facts are gathered first (with I/O), and checks judge them afterwards (pure functions)."""
