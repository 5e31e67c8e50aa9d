"""Every request in v1: a frame, or a clear refusal if v1 does not have it."""

from typing import Any

import pytest

from conclave.client.v1.exchange import V1Exchange
from conclave.errors import Code, Refusal
from conclave.protocol import requests
from conclave.protocol.body import Body, SealedBody
from conclave.protocol.requests import Request, result_type
from conclave.protocol.v1 import operations
from tests.support.v1_forms import FORMS, ME, Form


def test_every_request_of_v1_has_a_form() -> None:
    """The forms are what is tested; a request in the table and not among them is not."""
    with_bodies = {requests.Send, requests.Whisper, requests.History}
    assert {type(form.request) for form in FORMS} == operations.BY_REQUEST.keys() | with_bodies


def test_a_request_that_v1_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later operation may exist in v2 only: its user is told what the server lacks, and the connection goes on."""
    table: dict[Any, Any] = operations.BY_REQUEST
    monkeypatch.delitem(table, requests.Bans)
    made: V1Exchange[int] = V1Exchange(ME)
    with pytest.raises(Refusal, match=r"^this server does not know `bans`: it speaks protocol v1 only$"):
        made.ask(requests.Bans("ops"), 0)
    assert made.open_tickets() == []


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_result_is_of_the_type_that_its_request_names(form: Form) -> None:
    """The table of forms is typed loosely; its users are not."""
    assert type(form.result) is result_type(type(form.request))


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (requests.MachineRemove("m", user="bob"), "cannot remove a machine of somebody else's account"),
        (requests.History("ops", before="5:1"), "cannot read its history backwards"),
        (requests.History("ops"), "cannot read its history backwards"),
        (requests.History("ops", after="5-1"), "`5-1` is no position in the history of this server"),
        (requests.History("ops", after="5"), "`5` is no position"),
        (requests.History("ops", after="5:0"), "`5:0` is no position"),
        (requests.History("ops", after="1" * 19 + ":1"), "is no position"),
        (requests.History("ops", after_ts=0, limit=0), "`limit` must be 1 to 500"),
        (requests.History("ops", after_ts=0, limit=501), "`limit` must be 1 to 500"),
        (requests.Whisper("bob", Body(text="hi")), "invalid session path: `bob`"),
        (requests.Whisper("a/b/c/d", Body(text="hi")), "invalid session path: `a/b/c/d`"),
        (requests.MachineAdd("m", "short"), "malformed key or signature"),
        (requests.Send("ops", Body(sealed=SealedBody("+/+/"))), "invalid ciphertext: "),
        (requests.Send("ops", Body(sealed=SealedBody("__79_A=="))), "invalid ciphertext: "),
        (requests.Send("ops", Body(sealed=SealedBody("__79_B"))), "invalid ciphertext: "),
        (requests.Send("ops", Body(sealed=SealedBody("é"))), "invalid ciphertext: "),
    ],
    ids=str,
)
def test_a_request_that_v1_cannot_express_is_refused_before_it_is_sent(request_: Request[object], text: str) -> None:
    """And leaves nothing open: the next reply belongs to the next request."""
    made: V1Exchange[int] = V1Exchange(ME)
    with pytest.raises(Refusal) as caught:
        made.ask(request_, 0)
    assert caught.value.code is Code.MALFORMED
    assert text in caught.value.message
    assert made.open_tickets() == []
