"""Several processes behind one port, one for each core: each a node of its own, all of them watched by one parent."""

from relay.workers.supervisor import Supervisor

__all__ = ["Supervisor"]
