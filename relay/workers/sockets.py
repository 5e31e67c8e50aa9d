"""Listening sockets for several processes at one address.

On Linux each worker has a socket of its own, and the kernel spreads connections over them evenly (SO_REUSEPORT). With
one shared socket, the worker that wakes up first accepts all pending connections, and after a restart one worker serves
most clients. On other systems SO_REUSEPORT does not spread connections, so there the workers share one socket.

The parent binds the sockets and keeps them open: a port that is in use is an error of the parent, port 0 becomes the
same port for all workers, and a connection to a dead worker waits for its successor instead of being refused.
"""

import socket
import sys

Sockets = list[socket.socket]


def bind(host: str, port: int, count: int) -> list[Sockets]:
    """Return the sockets of each of `count` processes, one per address that `host` resolves to; not listening yet.

    Raises:
        OSError: the address is unknown or in use.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    shares: list[Sockets] = [[] for _ in range(count)]
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            for share, bound in zip(shares, _bind_address(family, kind, protocol, address, count), strict=True):
                share.append(bound)
    except BaseException:
        close(shares)
        raise
    return shares


def close(shares: list[Sockets]) -> None:
    """Close this process's descriptors of the sockets."""
    for share in shares:
        for each in share:
            each.close()


def _bind_address(family: int, kind: int, protocol: int, address: tuple[object, ...], count: int) -> Sockets:
    sockets = [_socket(family, kind, protocol)]
    try:
        sockets[0].bind(address)
        if sys.platform != "linux":
            return [*sockets, *(sockets[0].dup() for _ in range(count - 1))]
        # Set after the first bind, which fails if another program listens here; the other sockets may share the port.
        sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(count - 1):
            sockets.append(_socket(family, kind, protocol))
            sockets[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sockets[-1].bind(sockets[0].getsockname())
    except BaseException:
        close([sockets])
        raise
    return sockets


def _socket(family: int, kind: int, protocol: int) -> socket.socket:
    new = socket.socket(family, kind, protocol)
    new.setblocking(False)
    new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        new.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return new
