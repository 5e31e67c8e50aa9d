"""The settings of one bridge."""

from pathlib import Path

import msgspec

from bridge.connection.handles import Handle
from conclave.machine.config import LocalConfig
from conclave.machine.keys import MachineKey


class Options(msgspec.Struct, frozen=True):
    """The options of a start. `urls` are the servers, in the owner's order and spelling."""

    config_path: Path
    config: LocalConfig
    urls: tuple[str, ...]
    key: MachineKey
    handle: Handle
    state: Path
    """The directory of the state that the next run reads."""
