"""Users and their machines."""

import base64

from conclave.errors import Code, Refusal
from conclave.handshake import KEY_BYTES, unknown_key
from conclave.model import MachineInfo
from conclave.names import NameKind
from relay.admins import Admins
from relay.redis.directory import Directory
from relay.redis.inbox import Inbox, Revoke
from relay.redis.nodes import Registry
from relay.refusals import not_admin, valid_name
from relay.session import Session


class Accounts:
    """Enrols machines and tells whose key it is."""

    def __init__(self, *, directory: Directory, registry: Registry, inbox: Inbox, admins: Admins) -> None:
        self._directory = directory
        self._registry = registry
        self._inbox = inbox
        self._admins = admins

    async def authenticate(self, pubkey: bytes) -> tuple[str, str]:
        """Return the user and the machine of a key whose possession was proven. Raises: Refusal."""
        owner = await self._directory.owner_of(key_text(pubkey))
        if owner is None:
            raise unknown_key()
        return owner

    async def enroll(self, user: str, machine: str, pubkey: bytes) -> None:
        """Claim a username with its first machine; of any number of racing claims one succeeds. Raises: Refusal."""
        if self._admins.reserves(user, pubkey):
            raise Refusal(Code.UNAUTHORIZED, f"username `{user}` is reserved for a different key")
        match await self._directory.enroll(user, machine, key_text(pubkey)):
            case "taken":
                raise Refusal(Code.CONFLICT, f"username `{user}` is already taken")
            case "enrolled":
                raise _already_enrolled()

    def is_admin(self, user: str, pubkey: bytes) -> bool:
        return self._admins.grants(user, pubkey)

    async def users(self, session: Session) -> list[str]:
        """Return every username, for admins of the server. Raises: Refusal."""
        if not session.admin:
            raise not_admin()
        return await self._directory.users()

    async def machines(self, session: Session) -> list[MachineInfo]:
        """Return the machines of the caller's own account."""
        return await self._directory.machines(session.path.user)

    async def add_machine(self, session: Session, name: str, pubkey: bytes) -> None:
        """Enrol a key for the caller's account; it proves itself at its first login. Raises: Refusal."""
        valid_name(NameKind.MACHINE, name)
        if len(pubkey) != KEY_BYTES:
            raise Refusal(
                Code.MALFORMED, f"malformed key or signature: public key must be {KEY_BYTES} bytes, got {len(pubkey)}"
            )
        match await self._directory.add_machine(session.path.user, name, key_text(pubkey)):
            case "named":
                raise Refusal(Code.CONFLICT, f"machine `{name}` already exists")
            case "enrolled":
                raise _already_enrolled()
            case "gone":
                raise unknown_key()

    async def remove_machine(self, session: Session, name: str) -> None:
        """Revoke a machine of the caller's account and end its sessions on every node; no error if there is none.

        The key goes first and the signal follows: a login that is under way meets one of the two.
        """
        valid_name(NameKind.MACHINE, name)
        await self._directory.remove_machine(session.path.user, name)
        await self._inbox.broadcast(await self._registry.known(), Revoke(session.path.user, name))


def key_text(pubkey: bytes) -> str:
    """Write a public key as users see it: base64url without padding."""
    return base64.urlsafe_b64encode(pubkey).rstrip(b"=").decode()


def _already_enrolled() -> Refusal:
    return Refusal(Code.MALFORMED, "malformed key or signature: public key is already enrolled")
