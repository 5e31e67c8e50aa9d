"""The decoders of network input, each with its invariants for any input, and its seeds."""

from collections.abc import Callable

import msgspec

from tests.fuzz import json_targets, v1_targets, websocket_targets
from tests.fuzz.bounds import bounded


class Target(msgspec.Struct, frozen=True):
    """`check` raises if an invariant is broken; `is_json` selects the mutations."""

    check: Callable[[bytes], None]
    seeds: list[bytes]
    is_json: bool = False

    def run(self, data: bytes) -> None:
        """Raise if an invariant is broken for this input, bounds included."""
        with bounded(len(data)):
            self.check(data)


TARGETS = {
    "v2-request": Target(json_targets.request, json_targets.REQUESTS, is_json=True),
    "v2-message": Target(json_targets.message, json_targets.MESSAGES, is_json=True),
    "v2-server-login": Target(json_targets.server_login, json_targets.SERVER_LOGINS, is_json=True),
    "v2-client-login": Target(json_targets.client_login, json_targets.CLIENT_LOGINS, is_json=True),
    "v1-frame": Target(v1_targets.frame, v1_targets.FRAMES),
    "v1-payload": Target(v1_targets.payload, v1_targets.PAYLOADS),
    "bincode": Target(v1_targets.bincode, v1_targets.VALUES),
    "websocket": Target(websocket_targets.frames, websocket_targets.FRAMES),
}
