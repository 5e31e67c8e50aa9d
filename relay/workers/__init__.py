"""Several processes behind one port, for several cores: each is a node, and one parent supervises them."""

from relay.workers.supervisor import Supervisor

__all__ = ["Supervisor"]
