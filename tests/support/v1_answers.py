"""A conversation with a v1 server that is a function."""

from collections.abc import Callable
from typing import Any

from conclave.client.exchange import Answer, FollowUp
from conclave.client.v1.exchange import V1Exchange
from conclave.protocol.requests import Request
from conclave.protocol.v1 import decode, encode
from conclave.protocol.v1.frames import Frame


def answered(exchange: V1Exchange[None], request: Request[Any], serve: Callable[[Frame], Frame]) -> Any:
    """Return the result of a request, or its refusal, once `serve` has answered every frame that it takes."""
    data = exchange.ask(request, None)
    while True:
        outcome = exchange.receive(encode(serve(decode(data))))
        if isinstance(outcome, Answer):
            return outcome.result
        assert isinstance(outcome, FollowUp), outcome
        data = outcome.data
