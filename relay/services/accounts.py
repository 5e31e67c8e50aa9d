"""Accounts: users, their machines, and invites to the server."""

from conclave import base64url
from conclave.errors import Code, InvalidKey, Refusal
from conclave.model import AuditEntry, MachineInfo
from conclave.names import NameKind, check_requested_name
from conclave.protocol.credentials import unknown_key
from conclave.public_key import parse_public_key
from relay.cluster.announcements import Announcements
from relay.redis.directory import Directory, Registration
from relay.services.authorization import AuditLog, check_terms, new_token, permit
from relay.services.refusals import not_admin, revoked
from relay.services.server_admins import ServerAdmins
from relay.sessions.session import Session

_AUDIT_ROWS = 100


class Accounts:
    """Registers, authenticates and removes users and machines."""

    def __init__(
        self,
        *,
        directory: Directory,
        announcements: Announcements,
        audit: AuditLog,
        admins: ServerAdmins,
        registration: Registration,
    ) -> None:
        self._directory = directory
        self._announcements = announcements
        self._audit = audit
        self._admins = admins
        self._registration = registration

    async def authenticate(self, pubkey: bytes) -> tuple[str, str]:
        """Return the user and the machine of a key that the client has proven to hold. Raises: Refusal."""
        owner = await self._directory.owner_of(key_text(pubkey))
        if owner is None:
            raise unknown_key()
        return owner

    async def enroll(self, user: str, machine: str, pubkey: bytes, invite: str | None) -> None:
        """Register a username with its first machine. One of any number of racing registrations succeeds.

        The admins that the operator names may register under every policy; one of them is the first. Raises: Refusal.
        """
        if self._admins.reserves(user, pubkey):
            raise Refusal(Code.UNAUTHORIZED, f"username `{user}` is reserved for a different key")
        policy = "open" if self._admins.grants(user, pubkey) else self._registration
        match await self._directory.enroll(user, machine, key_text(pubkey), policy=policy, invite=invite or ""):
            case "taken":
                raise Refusal(Code.CONFLICT, f"username `{user}` is already taken")
            case "enrolled":
                raise _already_enrolled()
            case "closed":
                raise Refusal(Code.UNAUTHORIZED, "registration is closed on this server")
            case "uninvited":
                raise Refusal(Code.UNAUTHORIZED, "registration needs a valid invite to this server")

    def is_admin(self, user: str, pubkey: bytes) -> bool:
        return self._admins.grants(user, pubkey)

    async def create_server_invite(self, session: Session, uses: int | None, seconds: int | None) -> str:
        """Create an invite to register with. Server admins only. Raises: Refusal."""
        check_terms(uses, seconds)
        token = new_token()
        verdict = await self._directory.create_server_invite(session.caller, token, uses, seconds)
        self._audit(session.caller, "server_invite_create", "", verdict)
        permit(verdict)
        return token

    async def audit_trail(self, session: Session, limit: int | None) -> list[AuditEntry]:
        """Return the newest admin operations, 100 by default, oldest first. Server admins only. Raises: Refusal."""
        if not session.admin:
            raise not_admin()
        return await self._directory.audit(_AUDIT_ROWS if limit is None else limit)

    async def users(self, session: Session) -> list[str]:
        """Return every username, sorted. Server admins only. Raises: Refusal."""
        if not session.admin:
            raise not_admin()
        return await self._directory.users()

    async def remove_user(self, session: Session, user: str) -> None:
        """Remove a user with their channels, memberships, bans, machines, name and sessions, in one atomic step.

        No error if there is no such user. A channel that the user is creating meanwhile does not survive. Server admins
        only. Raises: Refusal.
        """
        outcome = await self._directory.remove_user(session.caller, user)
        self._audit(session.caller, "user_remove", user, outcome.verdict)
        permit(outcome.verdict)
        await self._announcements.publish(outcome.announcements)

    async def machines(self, session: Session) -> list[MachineInfo]:
        """Return the machines of the caller's own account."""
        return await self._directory.machines(session.path.user)

    async def add_machine(self, session: Session, name: str, public_key: str) -> None:
        """Enrol a key (base64url) for the caller's account; its first login proves it. Raises: Refusal."""
        check_requested_name(NameKind.MACHINE, name)
        try:
            pubkey = key_text(parse_public_key(public_key))
        except InvalidKey as error:
            raise Refusal(Code.MALFORMED, str(error)) from None
        outcome = await self._directory.add_machine(session.caller, name, pubkey)
        self._audit(session.caller, "machine_add", f"{session.path.user}/{name}", outcome)
        match outcome:
            case "named":
                raise Refusal(Code.CONFLICT, f"machine `{name}` already exists")
            case "enrolled":
                raise _already_enrolled()
            case "revoked":
                raise revoked()

    async def remove_machine(self, session: Session, name: str, user: str | None = None) -> None:
        """Revoke a machine and end its sessions on every node. No error if there is no such machine.

        `user` is another account, for server admins; by default it is the caller's own. The key is removed before the
        signal is sent, so that a login under way meets one of the two. Raises: Refusal.
        """
        check_requested_name(NameKind.MACHINE, name)
        owner = session.path.user if user is None else user
        outcome = await self._directory.remove_machine(session.caller, owner, name)
        self._audit(session.caller, "machine_remove", f"{owner}/{name}", outcome.verdict)
        permit(outcome.verdict)
        await self._announcements.publish(outcome.announcements)


def key_text(pubkey: bytes) -> str:
    """Return a public key as users see it: base64url without padding."""
    return base64url.encode(pubkey)


def _already_enrolled() -> Refusal:
    return Refusal(Code.MALFORMED, "malformed key or signature: public key is already enrolled")
