"""The relay's own failures, beside the refusals in `conclave.errors`."""

from conclave.errors import Code, ConclaveError, Refusal

RETRY_SECONDS = 1
"""The hint to clients when to retry, in seconds."""


class StoreUnavailable(Refusal):
    """Redis is unreachable or did not answer in time. The operation may or may not have happened."""

    def __init__(self, why: str) -> None:
        text = "the relay cannot reach its store; try again in a few seconds"
        super().__init__(Code.UNAVAILABLE, text, retry_after=RETRY_SECONDS)
        self.why = why


class NodeFailure(ConclaveError):
    """The node cannot go on and ends with a non-zero exit code; the text says what the operator can do."""


def bind_failure(host: str, port: int, error: OSError) -> NodeFailure:
    return NodeFailure(f"failed to bind `{host}:{port}`: {error.strerror or error}")
