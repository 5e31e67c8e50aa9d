"""`conclave top`: find the nodes, scrape their metrics, lay the figures out as a table."""
