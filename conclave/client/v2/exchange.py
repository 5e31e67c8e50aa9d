"""The matching of replies and requests on a v2 connection, whose requests carry numbers.

A reply names its request. A reply to a request that is not open, and a message that cannot be decoded, which may be a
message of a channel, mean that the connection has to be closed. Extensions of a later server, events with an unknown
name and unknown fields, are skipped.
"""

import logging
from itertools import count
from typing import Any, Generic

from conclave.client.exchange import CLOSED, Answer, Ending, Outcome, Received, Ticket, check_size
from conclave.errors import FrameError, OutOfStep, Refusal
from conclave.protocol.events import Closing
from conclave.protocol.requests import Request
from conclave.protocol.v2 import codec

_log = logging.getLogger(__name__)


class V2Exchange(Generic[Ticket]):
    """The requests that are open on one connection, by their numbers."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._open: dict[int, tuple[type[Request[Any]], Ticket]] = {}
        self._closing: Closing | None = None

    def ask(self, request: Request[Any], ticket: Ticket) -> bytes:
        """See Exchange."""
        number = next(self._numbers)
        try:
            data = check_size(codec.encode_request(number, request))
        except UnicodeEncodeError:
            raise FrameError("expected text that UTF-8 can express, got a lone surrogate") from None
        self._open[number] = (type(request), ticket)
        return data

    def open_tickets(self) -> list[Ticket]:
        """See Exchange."""
        return [ticket for _, ticket in self._open.values()]

    def receive(self, data: bytes) -> Outcome[Ticket] | None:
        """See Exchange."""
        try:
            message = codec.decode_message(data)
            if isinstance(message, codec.Reply):
                return self._answer(message)
        except FrameError as error:
            raise OutOfStep(f"undecodable response: {error}") from None
        if message is None:
            _log.debug("skipped an event that is not known here")
            return None
        if isinstance(message, Closing):
            self._closing = message
            return None
        return Received(message)

    def closed(self, close: tuple[int, str] | None) -> Ending:
        """See Exchange."""
        if self._closing is not None:
            last = self._closing
            return Ending(last.reason, last.reason, last.code, last.retry_after)
        if close is None:
            return Ending(None, CLOSED)
        code, reason = close
        return Ending(reason or None, reason or f"{CLOSED} (code {code})", code)

    def _answer(self, answer: codec.Reply) -> Answer[Ticket]:
        """Match a reply with its request.

        Raises:
            FrameError: if the result is not of that request's type.
        """
        asked = None if answer.re is None else self._open.get(answer.re)
        if answer.re is None or asked is None:
            said = "a result" if answer.refusal is None else f"`{answer.refusal.message}`"
            raise OutOfStep(f"unexpected response: {said} to request {answer.re}, which is not open")
        request, ticket = asked
        try:
            result: Any = codec.decode_result(answer, request)
        except Refusal as refusal:
            result = refusal
        del self._open[answer.re]
        return Answer(ticket, result)
