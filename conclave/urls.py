"""Server URLs: which ones can be dialled, and when two spellings mean one server."""

from urllib.parse import urlsplit

from conclave.errors import ConclaveError

_DEFAULT_PORT = {"ws": 80, "wss": 443}


class InvalidUrl(ConclaveError):
    """A server URL that cannot be dialled."""


def check_url(url: str) -> str:
    """Return `url` unchanged if it can be dialled: `ws://host` or `wss://host`, with an optional port and path.

    Raises:
        InvalidUrl: for anything else, credentials in the URL included: nothing here would use them.
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
    """Return what of a URL says whom one dials: scheme, host and port, in lower case; a default port is left out.

    So `wss://relay.example`, `wss://Relay.example:443/` and `wss://relay.example:443/team` have one origin.

    Raises:
        InvalidUrl: for a URL that cannot be dialled.
    """
    parts = urlsplit(check_url(url))
    return normalise(f"{parts.scheme}://{parts.netloc}".lower())


def normalise(url: str) -> str:
    """Return the spelling that identifies a server: scheme and host in lower case, default port and bare `/` dropped.

    Text that is no URL is returned as it is, so that it equals itself only.
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
