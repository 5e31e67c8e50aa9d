"""The bridge's exceptions. Their texts are for the agent. The tree of all exceptions opens `conclave.errors`."""

from conclave.errors import ConclaveError


class ToolError(ConclaveError):
    """A tool cannot do what it was asked for."""


class BadArguments(ConclaveError):
    """The arguments do not fit the tool; the text says what was expected."""


class AboveCeiling(ConclaveError):
    """Only the owner can grant that level; the text names the command."""


class JoinInProgress(ConclaveError):
    """The session is joining that channel already; a second call changes nothing."""


class NotConnected(ConclaveError):
    """There is no connection to the server; nothing was sent."""


class InDoubt(ConclaveError):
    """The server cannot tell if the request took effect."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}; it may have happened: look before you retry")


class SameCluster(ConclaveError):
    """The server at the other end is known already, under the URL `known`; nothing was sent to it."""

    def __init__(self, known: str) -> None:
        super().__init__(f"it is the same server as `{known}`")
        self.known = known
