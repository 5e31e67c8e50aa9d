"""A whole cluster on one machine: a private server, several nodes as processes, and a balancer before them."""
