"""What `conclave doctor` looks at: facts are gathered first, and judged afterwards by pure functions."""
