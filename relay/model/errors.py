"""The relay's own failures, beside the refusals of `conclave.errors`."""

from conclave.errors import Code, ConclaveError, Refusal

RETRY_SECONDS = 1
"""After how long it is worth asking again."""


class StoreUnavailable(Refusal):
    """Redis is away or did not answer in time. What was asked for may or may not have happened."""

    def __init__(self, why: str) -> None:
        text = "the relay cannot reach its store; try again in a few seconds"
        super().__init__(Code.UNAVAILABLE, text, retry_after=RETRY_SECONDS)
        self.why = why


class NodeFailure(ConclaveError):
    """The node cannot go on and ends with a non-zero exit code; the text says what to do about it."""


def not_bound(host: str, port: int, error: OSError) -> NodeFailure:
    return NodeFailure(f"failed to bind `{host}:{port}`: {error.strerror or error}")
