"""Entry points: one relay as a process, or a whole cluster on one machine behind a balancer."""
