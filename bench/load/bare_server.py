"""The floor: a WebSocket server that passes on what it receives, and does nothing else.

    python bench/load/bare_server.py PORT each|joined

It keeps nothing, knows nobody and checks nothing. A message `J…` joins a channel, and `P…` goes to all others there;
both are answered. With `each`, every listener gets one write per post; with `joined`, one for all posts that were read
together.
"""

import asyncio
import base64
import hashlib
import struct
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import cast

import uvloop

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SHORT = 126
_DONE = b"\x81\x04done"
_JOINED = b"\x81\x02ok"


class Hub:
    """The connections in each channel, and the ways to write to them."""

    def __init__(self, *, joined: bool) -> None:
        self.channels: defaultdict[bytes, dict[Peer, Callable[[bytes], None]]] = defaultdict(dict)
        self.joined = joined


class Peer(asyncio.Protocol):
    """One connection."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._rest = b""
        self._upgraded = False
        self._channel: dict[Peer, Callable[[bytes], None]] = {}
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def connection_lost(self, _: Exception | None) -> None:
        self._channel.pop(self, None)

    def data_received(self, data: bytes) -> None:
        """Handle all frames that are complete."""
        transport = self._transport
        if transport is None:
            return
        data = self._rest + data
        if not self._upgraded:
            head, separator, data = data.partition(b"\r\n\r\n")
            if not separator:
                self._rest = head
                return
            self._upgraded = True
            transport.write(_accepted(head))
        frames, at = [], 0
        while (found := _payload(data, at)) is not None:
            payload, at = found
            if payload[:1] == b"J":
                self._channel = self._hub.channels[payload]
                self._channel[self] = transport.write
                transport.write(_JOINED)
            else:
                frames.append(_frame(payload[1:]))
        self._rest = data[at:]
        if frames:
            self._pass_on(frames)
            transport.write(_DONE * len(frames))

    def _pass_on(self, frames: list[bytes]) -> None:
        for data in [b"".join(frames)] if self._hub.joined else frames:
            for listener, write in self._channel.items():
                if listener is not self:
                    write(data)


def _accepted(head: bytes) -> bytes:
    key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:")).split(b":")[1]
    accept = base64.b64encode(hashlib.sha1(key.strip() + _GUID, usedforsecurity=False).digest())
    lines = (b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade")
    return b"\r\n".join((*lines, b"Sec-WebSocket-Accept: " + accept, b"", b""))


def _payload(data: bytes, at: int) -> tuple[bytes, int] | None:
    """Return the payload of the masked frame that begins there, and where the next one begins; None if it is cut."""
    if len(data) < at + 6:
        return None
    size, start = data[at + 1] & 0x7F, at + 2
    if size == _SHORT:
        size, start = int.from_bytes(data[start : start + 2], "big"), start + 2
    end = start + 4 + size
    if len(data) < end:
        return None
    mask = data[start : start + 4] * (size // 4 + 1)
    flipped = int.from_bytes(data[start + 4 : end], "big") ^ int.from_bytes(mask[:size], "big")
    return flipped.to_bytes(size, "big"), end


def _frame(payload: bytes) -> bytes:
    size = len(payload)
    return (b"\x81" + (bytes([size]) if size < _SHORT else b"\x7e" + struct.pack("!H", size))) + payload


async def serve(port: int, *, joined: bool) -> None:
    """Serve until the process is ended."""
    hub = Hub(joined=joined)
    server = await asyncio.get_running_loop().create_server(lambda: Peer(hub), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), joined=sys.argv[2] == "joined"))
