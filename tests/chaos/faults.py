"""All faults that a run chooses from."""

from tests.chaos.failovers import FAILOVERS
from tests.chaos.fault import Fault
from tests.chaos.network_faults import NETWORK_FAULTS
from tests.chaos.node_faults import NODE_FAULTS
from tests.chaos.shards import SHARD_FAULTS
from tests.chaos.store_faults import STORE_FAULTS

FAULTS: tuple[Fault, ...] = (*NETWORK_FAULTS, *NODE_FAULTS, *STORE_FAULTS, *SHARD_FAULTS, *FAILOVERS)
