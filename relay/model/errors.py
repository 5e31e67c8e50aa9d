"""The relay's own failures, beside the refusals in `conclave.errors`."""

from conclave.errors import Code, ConclaveError, Refusal

RETRY_SECONDS = 1
"""The hint to clients when to retry, in seconds."""


class StoreUnavailable(Refusal):
    """Redis has not carried an operation out, or has not confirmed it in time: it may or may not have happened.

    `why` is for logs and operators; clients get the message. This class is the outage; its subclasses are the other
    reasons.
    """

    _CODE = Code.UNAVAILABLE
    _TEXT = "the relay cannot reach its store; try again in a few seconds"

    def __init__(self, why: str) -> None:
        super().__init__(self._CODE, self._TEXT, retry_after=RETRY_SECONDS if self._CODE is Code.UNAVAILABLE else None)
        self.why = why


class StoreRefused(StoreUnavailable):
    """Redis answers and does not carry the operation out now. `word` is the code of its reply, such as `OOM`."""

    def __init__(self, word: str, why: str) -> None:
        super().__init__(why)
        self.word = word


class StoreOverloaded(StoreUnavailable):
    """This node asks more of Redis than may wait. The operation was not sent."""

    _TEXT = "the relay has too much to do; try again in a few seconds"


class StoreDefect(StoreUnavailable):
    """A script or a command is wrong, or a key has another type than it should: a retry would not help."""

    _CODE = Code.INTERNAL
    _TEXT = "the relay failed to carry this out"


class NodeFailure(ConclaveError):
    """The node cannot go on and ends with a non-zero exit code; the text says what the operator can do."""


def bind_failure(host: str, port: int, error: OSError) -> NodeFailure:
    return NodeFailure(f"failed to bind `{host}:{port}`: {error.strerror or error}")
