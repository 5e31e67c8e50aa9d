"""The client's login in v2, as `conclave.client.login.Login` wants it."""

from conclave import __version__
from conclave.client.login import LoggedIn
from conclave.client.v2.exchange import V2Exchange
from conclave.protocol.credentials import Signer
from conclave.protocol.events import Role
from conclave.protocol.v2.login import ClientLogin, challenged_by, hello

CLIENT = f"conclave/{__version__}"


class Greeting:
    """The part of a login that tells which cluster answers. It signs nothing; see `conclave.client.login.Login`."""

    def __init__(self, url: str, session: str) -> None:
        self._url = url
        self._session = session

    def opening(self) -> bytes:
        return hello(self._url, self._session, CLIENT)

    def receive(self, data: bytes) -> tuple[bytes, ...] | str:
        return challenged_by(data)


class V2Login:
    """For a known machine or, with `register`, for a new (user, machine); see `conclave.client.login.Login`."""

    def __init__(
        self,
        url: str,
        session: str,
        key: Signer,
        *,
        register: tuple[str, str] | None,
        invite: str | None,
        cluster: str | None,
    ) -> None:
        """Take the URL that was dialled and the cluster id that is expected there, None if any will do."""
        self._login = ClientLogin(
            url=url,
            session=session,
            signer=key,
            client=CLIENT,
            expected_cluster=cluster,
            register=register,
            invite=invite,
        )

    def opening(self) -> bytes:
        return self._login.hello()

    def receive(self, data: bytes) -> tuple[bytes, ...] | LoggedIn:
        step = self._login.receive(data)
        if isinstance(step, bytes):
            return (step,)
        role = Role(step.admin)
        return LoggedIn(2, step.path, (role,), V2Exchange(), cluster=self._login.cluster, heartbeat=step.heartbeat)
