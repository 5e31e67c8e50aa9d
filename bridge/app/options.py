"""The settings of one bridge."""

from pathlib import Path

import msgspec

from bridge.connection.handles import Handle
from conclave.machine.config import LocalConfig
from conclave.machine.keys import MachineKey


class Options(msgspec.Struct, frozen=True):
    """What a bridge is started with. `urls` are the servers, in the owner's order and spelling."""

    config_path: Path
    config: LocalConfig
    urls: tuple[str, ...]
    key: MachineKey
    handle: Handle
    state: Path
    """The directory for what the next run has to know."""
