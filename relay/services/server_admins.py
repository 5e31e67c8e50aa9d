"""The server's admins: names from the operator, each optionally pinned to one machine key."""

from collections.abc import Iterable, Mapping

from conclave.errors import ConfigError, InvalidKey, InvalidName
from conclave.names import NameKind, check_name
from conclave.public_key import parse_public_key


class ServerAdmins:
    """Usernames with the admin role. A pinned name has it only in sessions of its key."""

    def __init__(self, pins: Mapping[str, bytes | None]) -> None:
        self._pins = dict(pins)

    @classmethod
    def parse(cls, specs: Iterable[str]) -> "ServerAdmins":
        """Read items of the form `USER` or `USER=PUBKEY`, or several of them separated by commas.

        Raises:
            ConfigError: for an invalid name or key, or a name that is given twice.
        """
        pins: dict[str, bytes | None] = {}
        for spec in (part.strip() for text in specs for part in text.split(",")):
            if not spec:
                continue
            name, equals, key = spec.partition("=")
            try:
                check_name(NameKind.USER, name)
                pin = parse_public_key(key) if equals else None
            except (InvalidName, InvalidKey) as error:
                raise ConfigError(f"invalid admin `{spec}`: {error} (expected USER or USER=PUBKEY)") from None
            if name in pins:
                raise ConfigError(f"invalid admin `{spec}`: `{name}` is given twice")
            pins[name] = pin
        return cls(pins)

    @property
    def unpinned(self) -> list[str]:
        return sorted(name for name, pin in self._pins.items() if pin is None)

    def grants(self, user: str, pubkey: bytes) -> bool:
        """Return True if this user is an admin of the server when logged in with this key."""
        return user in self._pins and self._pins[user] in (None, pubkey)

    def reserves(self, user: str, pubkey: bytes) -> bool:
        """Return True if this name is pinned to another key, and cannot be registered with this one."""
        return self._pins.get(user) not in (None, pubkey)
