"""Server URLs: the check that one can be dialled, and the comparison of spellings."""

import ipaddress
from urllib.parse import urlsplit

from conclave.errors import InvalidUrl

_DEFAULT_PORT = {"ws": 80, "wss": 443}


def check_url(url: str) -> str:
    """Return `url` unchanged if it can be dialled: `ws://host` or `wss://host`, with an optional port and path.

    Raises:
        InvalidUrl: for any other URL, also for one with credentials, which no client uses.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _DEFAULT_PORT and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:  # a port out of range, an unclosed bracket
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise InvalidUrl(f"invalid server URL `{url}` (expected `ws://host` or `wss://host`)")
    return url


def origin(url: str) -> str:
    """Return the origin of a URL: scheme, host and port in lower case, without a default port.

    `wss://relay.example`, `wss://Relay.example:443/` and `wss://relay.example:443/team` have one origin. So have all
    spellings of one IPv6 address, and an internationalised name and its form in ASCII.

    Raises:
        InvalidUrl: for a URL that cannot be dialled.
    """
    parts = urlsplit(check_url(url))
    host = _plain(parts.hostname or "")
    port = "" if parts.port is None else f":{parts.port}"
    return normalise(f"{parts.scheme}://{host}{port}")


def _plain(host: str) -> str:
    """Return one spelling of a host for all equivalent ones; a host that cannot be parsed stays as it is."""
    if ":" in host:
        try:
            return f"[{ipaddress.IPv6Address(host)}]"
        except ValueError:
            return f"[{host}]"
    if host.isascii():
        return host.lower()
    try:
        return host.encode("idna").decode().lower()
    except UnicodeError:
        return host.lower()


def normalise(url: str) -> str:
    """Return the spelling that identifies a server: scheme and host in lower case, default port and bare `/` dropped.

    Text that is not a URL is returned unchanged, so it equals itself only.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return url
    if not host:
        return url
    host = f"[{host}]" if ":" in host else host
    authority = host if port in {None, _DEFAULT_PORT.get(parts.scheme)} else f"{host}:{port}"
    path = "" if parts.path == "/" else parts.path
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{authority}{path}{query}"


def same_server(one: str, other: str) -> bool:
    return normalise(one) == normalise(other)
