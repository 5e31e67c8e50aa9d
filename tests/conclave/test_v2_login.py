"""The login of protocol v2: accepted and refused logins, and stolen answers."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from conclave.base64url import encode
from conclave.client.v2.login import ClientLogin, challenged_by
from conclave.errors import ClosedLogin, Code, FrameError, InvalidUrl, NotTrusted, Refusal
from conclave.machine.keys import MachineKey
from conclave.protocol.credentials import LoginClaim, RegistrationClaim
from conclave.protocol.events import Closing
from conclave.protocol.v2 import encode_event
from conclave.protocol.v2.login import Ready, signed_bytes
from conclave.protocol.v2.server_login import ServerLogin
from conclave.urls import origin

KEY = MachineKey(b"k" * 32)
NONCE = bytes(range(32))
URL = "wss://relay.example"


def server(*, nonce: bytes = NONCE, cluster: str = "one", origins: frozenset[str] = frozenset()) -> ServerLogin:
    return ServerLogin(nonce, cluster=cluster, node="n1", origins=origins)


def client(url: str = URL, **more: Any) -> ClientLogin:
    return ClientLogin(url=url, session="main", signer=KEY, client="test", **more)


def sent(step: object) -> bytes:
    assert isinstance(step, bytes)
    return step


def conduct(ours: ClientLogin, theirs: ServerLogin) -> LoginClaim | RegistrationClaim:
    """Exchange messages until the server has a claim."""
    step = theirs.receive(ours.hello())
    while isinstance(step, bytes):
        step = theirs.receive(sent(ours.receive(step)))
    return step


def test_a_machine_logs_in() -> None:
    """The key is proven, independent of its owner."""
    ours = client()
    assert conduct(ours, server()) == LoginClaim(KEY.public_key, "main")
    assert ours.cluster == "one", "for the client to pin"


@pytest.mark.parametrize("invite", [None, "let-me-in"])
def test_a_user_registers(invite: str | None) -> None:
    """With the machine's name, and the invite if there is one."""
    ours = client(register=("ann", "laptop"), invite=invite)
    assert conduct(ours, server()) == RegistrationClaim("ann", "laptop", KEY.public_key, "main", invite)


def test_the_signature_is_over_exactly_these_bytes() -> None:
    """Authors of other clients rely on the documented form."""
    assert signed_bytes("auth", "c", "wss://h:1", b"\x00\xff") == b"conclave.v2\nauth\nc\nwss://h:1\n\x00\xff"


def test_ready_ends_the_login() -> None:
    """The path, the role and the limits are what the client has to know."""
    ours = client()
    ours.receive(server().receive(ours.hello()))  # type: ignore[arg-type]
    data = (
        '{"ev":"ready","path":"a/b/c","admin":true,"heartbeat":20,'
        '"limits":{"message_bytes":5,"colour":1},"motd":"hello"}'
    )
    ready = ours.receive(data)
    assert isinstance(ready, Ready)
    assert (ready.path, ready.admin, ready.heartbeat, ready.limits.message_bytes) == ("a/b/c", True, 20, 5)


def refused(step: Any, *args: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        step(*args)
    return caught.value


def test_an_answer_for_one_cluster_is_worth_nothing_at_another() -> None:
    """A rogue server passes on another one's nonce: its own cluster id in the signature gives it away."""
    rogue, victim = server(cluster="rogue"), server(cluster="victim")
    ours = client("wss://rogue.example")
    sent(victim.receive(ours.hello()))
    answer = sent(ours.receive(sent(rogue.receive(ours.hello()))))
    assert refused(victim.receive, answer).message == "signature verification failed"


def test_an_answer_for_one_address_is_worth_nothing_at_another() -> None:
    """Even if the rogue claims the victim's cluster id: the client signs what it has dialled."""
    victim = server(cluster="victim", origins=frozenset({"wss://victim.example"}))
    lured = client("wss://rogue.example")
    refusal = refused(victim.receive, lured.hello())
    assert refusal.code is Code.UNAUTHORIZED
    assert refusal.message == "this relay is reached as `wss://victim.example`, not as `wss://rogue.example`"
    honest = client("wss://victim.example")
    challenge = sent(server(cluster="victim").receive(honest.hello()))
    sent(victim_again := server(cluster="victim", origins=frozenset({"wss://victim.example"})).receive(honest.hello()))
    assert victim_again == challenge, "same nonce, for the test's sake"
    answer = sent(lured.receive(challenge))
    theirs = server(cluster="victim", origins=frozenset({"wss://victim.example"}))
    sent(theirs.receive(honest.hello()))
    assert refused(theirs.receive, answer).message == "signature verification failed"


def test_a_signature_for_one_purpose_is_worth_nothing_for_another() -> None:
    """A login must not become a registration."""
    ours, theirs = client(), server()
    proof = json.loads(sent(ours.receive(sent(theirs.receive(ours.hello())))))
    stolen = {**proof, "op": "register", "user": "eve", "machine": "den"}
    assert refused(theirs.receive, json.dumps(stolen)).message == "signature verification failed"


def test_a_client_does_not_answer_another_cluster_than_it_knows() -> None:
    """The text names both, like that of a changed host key."""
    ours = client(expected_cluster="one")
    assert conduct(ours, server()) == LoginClaim(KEY.public_key, "main")
    ours = client(expected_cluster="one")
    challenge = server(cluster="two").receive(ours.hello())
    with pytest.raises(NotTrusted, match=r"`wss://relay.example` says it is cluster `two`, but `one` is expected"):
        ours.receive(sent(challenge))
    assert ours.cluster == "", "nothing was signed"


@pytest.mark.parametrize("nonce", ["", "AA", "!", "A" * 44])
def test_a_client_signs_nonces_only(nonce: str) -> None:
    """Thirty-two bytes, and no text that an attacker would like to have signed."""
    ours = client()
    challenge = json.dumps({"ev": "challenge", "nonce": nonce, "cluster": "one", "node": "n"})
    with pytest.raises(FrameError, match=r"^invalid nonce"):
        ours.receive(challenge)


@pytest.mark.parametrize("cluster", ["", "a b", "one\nwss://other.example", "x" * 129, "\x1b[2J"])
def test_a_client_signs_for_clusters_with_a_plain_name_only(cluster: str) -> None:
    """It stands between the lines that are signed, in the configuration and on the terminal."""
    challenge = json.dumps({"ev": "challenge", "nonce": encode(NONCE), "cluster": cluster, "node": "n"})
    for receive in (client().receive, challenged_by):
        with pytest.raises(FrameError, match=r"^invalid cluster id"):
            receive(challenge)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("wss://relay.example", "wss://relay.example"),
        ("wss://Relay.Example:443/", "wss://relay.example"),
        ("WSS://relay.example:443/team?x=1", "wss://relay.example"),
        ("ws://relay.example:80", "ws://relay.example"),
        ("wss://relay.example:80", "wss://relay.example:80"),
        ("ws://127.0.0.1:4390/", "ws://127.0.0.1:4390"),
        ("ws://[::1]:4390", "ws://[::1]:4390"),
        ("ws://[::1]:80/x", "ws://[::1]"),
    ],
)
def test_an_origin_is_whom_one_dials(url: str, expected: str) -> None:
    """However it is spelt: path, case and a default port make no other server."""
    assert origin(url) == expected
    assert origin(expected) == expected


@pytest.mark.parametrize("url", ["", "relay.example", "http://relay.example", "ws://", "ws://a:b@c", "ws://h:0"])
def test_what_cannot_be_dialled_has_no_origin(url: str) -> None:
    """The relay refuses it instead of comparing."""
    with pytest.raises(InvalidUrl):
        origin(url)
    assert refused(server().receive, json.dumps(hello(origin=url))).message.startswith("invalid origin")


@pytest.mark.parametrize("claimed", ["wss://relay.example:443", "wss://RELAY.example", "wss://relay.example/team"])
def test_a_relay_knows_its_address_in_every_spelling(claimed: str) -> None:
    """A client that writes the default port is not refused; the signature covers its own text."""
    theirs = server(origins=frozenset({"wss://relay.example"}))
    challenge = json.loads(sent(theirs.receive(json.dumps(hello(origin=claimed)))))
    nonce = NONCE
    signature = KEY.sign(signed_bytes("auth", challenge["cluster"], claimed, nonce))
    proof = {"op": "auth", "pubkey": KEY.public_text, "signature": encode(signature)}
    assert theirs.receive(json.dumps(proof)) == LoginClaim(KEY.public_key, "main")


def hello(**more: Any) -> dict[str, Any]:
    return {"op": "hello", "protocol": 2, "session": "main", "origin": URL, **more}


def test_a_client_of_another_version_is_told_both_versions() -> None:
    """Also if its hello has other fields than this one."""
    refusal = refused(server().receive, '{"op":"hello","protocol":3,"sess":1}')
    assert refusal.code is Code.VERSION
    assert refusal.message == "incompatible protocol version: ours=2, theirs=3"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"protocol": "2"}, "expected a `hello`: Expected `int`, got `str` - at `$.protocol`"),
        ({"op": "auth"}, "expected a `hello`"),
        ({"session": "a/b"}, "invalid session handle: `a/b` (it must not contain `/`)"),
        ({"session": 7}, "expected a `hello`: Expected `str`, got `int` - at `$.session`"),
    ],
)
def test_a_bad_hello_is_malformed(change: dict[str, Any], text: str) -> None:
    """With the reason, before anything is signed."""
    refusal = refused(server().receive, json.dumps(hello(**change)))
    assert refusal.code is Code.MALFORMED
    assert refusal.message == text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"pubkey": "AA"}, "malformed key or signature: public key must be 32 bytes"),
        ({"pubkey": "="}, "malformed key or signature: expected base64url"),
        ({"signature": "AA"}, "malformed key or signature: signature must be 64 bytes"),
        ({"signature": "+"}, "malformed key or signature: expected base64url"),
        ({"user": "a/b"}, "invalid username: `a/b`"),
        ({"machine": ""}, "invalid machine name: ``"),
        ({"op": "hello"}, "expected `auth` or `register`"),
        ({"signature": None}, "expected `auth` or `register`"),
    ],
)
def test_a_bad_proof_is_malformed(change: dict[str, Any], text: str) -> None:
    """With the rule that it breaks."""
    ours, theirs = client(register=("ann", "laptop")), server()
    proof = json.loads(sent(ours.receive(sent(theirs.receive(ours.hello())))))
    refusal = refused(theirs.receive, json.dumps({**proof, **change}))
    assert refusal.code is Code.MALFORMED
    assert refusal.message.startswith(text)


@pytest.mark.parametrize(
    ("closing", "code"),
    [
        (Closing(4006, "no", None, "conflict"), Code.CONFLICT),
        (Closing(4006, "no"), Code.UNAUTHORIZED),
        (Closing(4007, "no"), Code.MALFORMED),
        (Closing(1013, "no", 3), Code.UNAVAILABLE),
        (Closing(1012, "no"), Code.UNAVAILABLE),
        (Closing(1011, "no"), Code.INTERNAL),
        (Closing(4999, "no", None, "new"), Code.INTERNAL),
    ],
)
def test_a_refused_login_is_that_refusal(closing: Closing, code: Code) -> None:
    """The code, the text and the time of a retry survive the way."""
    ours = client()
    refusal = refused(ours.receive, encode_event(closing))
    assert (refusal.code, refusal.message, refusal.retry_after) == (code, "no", closing.retry_after)
    assert isinstance(refusal, ClosedLogin)
    assert refusal.close_code == closing.code


@pytest.mark.parametrize("data", ["{}", "[]", "\xff", '{"ev":"gap"}', '{"ev":"ready"}', b"\x80"])
def test_a_client_stops_at_what_is_no_login(data: bytes | str) -> None:
    """Something answers there, and it is no relay."""
    for receive in (client().receive, challenged_by):
        with pytest.raises(FrameError):
            receive(data)


class Conversation(RuleBasedStateMachine):
    """Messages of a login in any order, valid and invalid: only the one valid sequence is accepted."""

    @initialize()
    def begin(self) -> None:
        self.ours = client()
        self.theirs = server()
        self.challenge: bytes | None = None
        self.over = False
        self.good = True
        """True if every message so far belongs to the one valid sequence."""
        self.claim: object = None

    def say(self, data: bytes | str, *, good: bool) -> bytes | None:
        was_over = self.over
        if not was_over:
            self.good = self.good and good
        try:
            step = self.theirs.receive(data)
        except Refusal:
            assert was_over or not self.good
            self.over = True
            return None
        assert not self.over, "a login that is over takes nothing more"
        if isinstance(step, bytes):
            return step
        self.over, self.claim = True, step
        return None

    @rule()
    def open(self) -> None:
        self.challenge = self.say(self.ours.hello(), good=self.challenge is None and not self.over) or self.challenge

    @rule()
    def answer(self) -> None:
        if self.challenge is not None and not self.ours.cluster:
            answer = sent(self.ours.receive(self.challenge))
            was_over = self.over
            self.say(answer, good=not self.over)
            if not was_over and self.good:
                assert self.claim == LoginClaim(KEY.public_key, "main")

    @rule()
    def answer_to_another_challenge(self) -> None:
        other = client()
        self.say(sent(other.receive(sent(server(nonce=bytes(32)).receive(other.hello())))), good=False)

    @rule(data=st.binary(max_size=30) | st.sampled_from(["{}", '{"op":"auth"}', '{"op":"ping","id":1}']))
    def nonsense(self, data: bytes | str) -> None:
        self.say(data, good=False)

    @invariant()
    def no_other_sequence_is_accepted(self) -> None:
        assert getattr(self, "claim", None) is None or self.good


TestConversation = Conversation.TestCase


@given(st.binary(max_size=200))
def test_no_bytes_crash_a_login(data: bytes) -> None:
    """A refusal is the only way out on the server's side, a login that is none on the client's."""
    with pytest.raises(Refusal):
        server().receive(data)
    with pytest.raises(FrameError):
        client().receive(data)
