"""What `conclave top` shows: nodes found, asked for their metrics, and put into a table."""
