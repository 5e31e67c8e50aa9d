"""The sockets of one address for several processes.

On Linux each worker has a socket of its own, and the kernel spreads connections over them evenly (SO_REUSEPORT). With
one socket for all, whoever wakes up first takes what there is, and after a restart one worker serves most clients
(docs/decisions/0008). Elsewhere SO_REUSEPORT does not spread anything, so there they do share one.

The parent binds them and keeps them: a port that is in use is its error, port 0 becomes the same port for all, and a
connection that meets a dead worker waits for the next one instead of being refused.
"""

import socket
import sys

Sockets = list[socket.socket]


def bind(host: str, port: int, count: int) -> list[Sockets]:
    """Return for each of `count` processes its sockets, one per address that `host` stands for; not listening yet.

    Raises:
        OSError: if the address is unknown or in use, by whatever kind of socket.
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
    """Let go of this process's hold on the sockets."""
    for share in shares:
        for each in share:
            each.close()


def _bind_address(family: int, kind: int, protocol: int, address: tuple[object, ...], count: int) -> Sockets:
    sockets = [_socket(family, kind, protocol)]
    try:
        sockets[0].bind(address)
        if sys.platform != "linux":
            return [*sockets, *(sockets[0].dup() for _ in range(count - 1))]
        # Only now: the first bind has found out whether somebody else is there, the others may join it.
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
