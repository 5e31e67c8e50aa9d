"""Valid and invalid requests in any order: the relay and a small model of it agree all the time."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from conclave_conformance.client import Asked
from conclave_conformance.company import Company
from tests.support.nodes import node_object
from tests.support.session_model import SESSIONS, Sending, SessionModel
from tests.support.trials import by_form

EXAMPLES = by_form(2, 30, 1_000)
STEPS = by_form(25, 40, 60)
STEP_SECONDS = 30

WHO = st.sampled_from(SESSIONS)
CHANNEL = st.integers(0, 1)
TEXT = st.text(max_size=20)
KEY = st.sampled_from((None, "k", "ö" * 64))
PLACE = st.none() | st.integers(-1, 6)

# Each of these is invalid in any state.
BAD_IDS = st.sampled_from((None, "true", "null", "1.5", "1.0", "1e3", '"7"', "[7]", "{}", str(2**53), "9" * 5000))
BAD_FIELDS = st.sampled_from(
    (
        {},
        {"op": None},
        {"op": 7},
        {"op": "dance"},
        {"op": "hello", "protocol": 2},
        {"op": "join"},
        {"op": "join", "channel": None},
        {"op": "join", "channel": ["c"]},
        {"op": "leave", "channel": ""},
        {"op": "leave", "channel": "a/b"},
        {"op": "send", "channel": "c"},
        {"op": "send", "channel": "c", "body": None},
        {"op": "send", "channel": "c", "body": {"text": "a", "sealed": {"ciphertext": ""}}},
        {"op": "send", "channel": "c", "body": {"text": "\ud800"}},
        {"op": "whisper", "to": "ann", "body": {"text": ""}},
        {"op": "whisper", "to": "a" * 100_000, "body": {"text": ""}},
        {"op": "history", "channel": "c", "limit": 10**30},
        {"op": "history", "channel": "c", "limit": 0},
        {"op": "history", "channel": "c", "after": "c"},
        {"op": "history", "channel": "c", "after": "0-0", "after_ts": 0},
        {"op": "channel.create", "channel": "a\u202eb"},
        {"op": "channel.create", "channel": "c", "visibility": "x" * 100_000},
        {"op": "audit", "limit": 2**70},
    )
)
UNREADABLE = st.sampled_from(("", "[]", "7", "null", '{"id":1', "{'id':1}", "\ufeff{}", "[" * 5000, b"{}", b"\xff"))
SMALL = st.sampled_from(("ping", "who", "channels", "machines", "flaw", "send"))


class RequestMachine(RuleBasedStateMachine):
    """One run of requests, on a node that has had others before."""

    runner: ClassVar[asyncio.Runner]
    company: ClassVar[Company]

    def _run(self, step: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(STEP_SECONDS):
                await step

        self.runner.run(bounded())

    @initialize()
    def open(self) -> None:
        self.model = SessionModel(self.company)
        self._run(self.model.open())

    def teardown(self) -> None:
        if hasattr(self, "model"):
            self._run(self.model.close())

    @rule(who=WHO, number=CHANNEL, since=PLACE)
    def join(self, who: str, number: int, since: int | None) -> None:
        self._run(self.model.join(who, number, since))

    @rule(who=WHO, number=CHANNEL)
    def leave(self, who: str, number: int) -> None:
        self._run(self.model.leave(who, number))

    @rule(who=WHO, number=CHANNEL, text=TEXT, key=KEY)
    def send(self, who: str, number: int, text: str, key: str | None) -> None:
        """With a key twice, as a client that did not get the first reply."""

        async def step() -> None:
            client = self.model.clients[who]
            for _ in range(1 if key is None else 2):
                sending = self.model.request_send(who, number, text, key)
                await client.say(sending.asked.text)
                self.model.sent(sending, await client.reply(sending.asked))

        self._run(step())

    @rule(number=CHANNEL, count=st.integers(1, 20))
    def all_at_once(self, number: int, count: int) -> None:
        """Every session sends without waiting for the others; the log has the order."""

        async def step() -> None:
            sendings = [
                self.model.request_send(who, number, f"{who} {i}", None) for i in range(count) for who in SESSIONS
            ]
            for each in sendings:
                await self.model.clients[each.who].say(each.asked.text)
            answered = [(each, await self.model.clients[each.who].reply(each.asked)) for each in sendings]
            for each, reply in sorted(answered, key=lambda pair: _place(pair[1])):
                self.model.sent(each, reply)

        self._run(step())

    @rule(who=WHO, number=CHANNEL, kinds=st.lists(SMALL, min_size=1, max_size=30))
    def sent_ahead(self, who: str, number: int, kinds: list[str]) -> None:
        """Requests and flaws without a wait in between: one reply for each, in their order."""

        async def step() -> None:
            client = self.model.clients[who]
            asked: list[tuple[str, Asked, Sending | None]] = []
            for kind in kinds:
                if kind == "send":
                    sending = self.model.request_send(who, number, "ahead", None)
                    asked.append((kind, sending.asked, sending))
                elif kind == "flaw":
                    asked.append((kind, client.expect_reply('{"op":"ping","id":[]}', None), None))
                else:
                    asked.append((kind, client.request(kind), None))
            for _, each, _ in asked:
                await client.say(each.text)
            for kind, each, made in asked:
                reply = await client.reply(each)
                if made is not None:
                    self.model.sent(made, reply)
                assert kind == "send" or ("error" in reply) == (kind == "flaw"), reply

        self._run(step())

    @rule(who=WHO, number=CHANNEL, after=PLACE, limit=st.integers(1, 6))
    def history(self, who: str, number: int, after: int | None, limit: int) -> None:
        self._run(self.model.history(who, number, after if after is None or after >= 0 else None, limit))

    @rule(who=WHO, to=WHO)
    def whisper(self, who: str, to: str) -> None:
        self._run(self.model.whisper(who, to))

    @rule(by=WHO, number=CHANNEL, lift=st.booleans())
    def ban(self, by: str, number: int, lift: bool) -> None:
        self._run(self.model.ban(by, number, lift=lift))

    @rule(by=WHO, number=CHANNEL)
    def kick(self, by: str, number: int) -> None:
        self._run(self.model.kick(by, number))

    @rule(by=WHO, number=CHANNEL)
    def delete_or_create(self, by: str, number: int) -> None:
        self._run(self.model.delete_or_create(by, number))

    @rule(who=WHO, number=st.integers(-(2**53) + 1, 2**53 - 1), fields=BAD_FIELDS)
    def broken_field(self, who: str, number: int, fields: dict[str, Any]) -> None:
        self._run(self.model.broken(who, json.dumps({**fields, "id": number}), number))

    @rule(who=WHO, bad=BAD_IDS, op=st.sampled_from(("ping", "channel.delete", "dance")), number=CHANNEL)
    def broken_id(self, who: str, bad: str | None, op: str, number: int) -> None:
        """It is not carried out either: no client would learn the outcome."""
        rest = json.dumps({"op": op, "channel": self.model.channels[number].name})
        self._run(self.model.broken(who, rest if bad is None else f'{{"id":{bad},{rest[1:]}', None))

    @rule(who=WHO, message=UNREADABLE)
    def unreadable(self, who: str, message: str | bytes) -> None:
        self._run(self.model.unreadable(who, message))

    @rule(who=WHO)
    def superseded(self, who: str) -> None:
        self._run(self.model.superseded(who))


def _place(reply: dict[str, Any]) -> tuple[int, ...]:
    return tuple(map(int, reply["id"].split("-"))) if "id" in reply else ()


def test_any_requests_have_the_replies_of_the_model(redis_url: str) -> None:
    """No crash, no hang, one reply for each request, and every session receives what it must and nothing else."""
    with asyncio.Runner() as runner:
        nodes = node_object(redis_url)
        node = runner.run(nodes.__aenter__())
        try:

            class Here(RequestMachine):
                """On this test's node."""

            Here.runner, Here.company = runner, Company(f"ws://{node.address}/", None)
            run_state_machine_as_test(
                Here,
                settings=settings(
                    max_examples=EXAMPLES,
                    stateful_step_count=STEPS,
                    deadline=None,
                    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking takes minutes; the log tells
                    suppress_health_check=list(HealthCheck),
                ),
            )
            assert len(node.parts.sessions) == 0
        finally:
            runner.run(nodes.__aexit__(None, None, None))
