"""`conclave-conformance`: our relay passes, and a server with a defect fails the check that names it."""

import asyncio
import importlib
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from redis import Redis

from conclave_conformance import client, suite
from conclave_conformance.command import main
from conclave_conformance.company import Company
from conclave_conformance.verdict import Check
from tests.support.conformance import examine
from tests.support.moderation import ROOT
from tests.support.nodes import running_node
from tests.support.ports import free_port
from tests.support.tampering_proxy import Json, Tampering, tampering_proxy
from tests.support.v2_peer import V2Peers

ROOT_FOLDER = Path(__file__).parents[2]
PAGE = (ROOT_FOLDER / "docs" / "protocol.md").read_text()


def answer(*arguments: str) -> tuple[int, str, str]:
    """Run the program's main function in this process; returns the same."""
    finished = CliRunner().invoke(main, arguments)
    return finished.exit_code, finished.stdout, finished.stderr


async def findings(url: str, only: str, invite: str | None = None) -> dict[str, Any]:
    """Run the checks that match, in this process; returns what the program prints of each, by their names."""
    company = Company(url, invite)
    try:
        outcomes = [outcome async for outcome in suite.run(company, suite.chosen(only))]
    finally:
        await company.disperse()
    return {outcome.name: msgspec.to_builtins(outcome) for outcome in outcomes}


# --- Servers without a defect ---


async def test_our_relay_passes(redis_url: str) -> None:
    """Every check, none skipped: the relay, the page and the checks agree."""
    async with running_node(redis_url, handshake_seconds=1.0, idle_seconds=6.0) as url:
        code, out, _ = await examine(url)
        lines = out.splitlines()
        assert (code, [line for line in lines if not line.startswith("ok ")]) == (0, [f"{len(suite.CHECKS)} ok"]), out


async def test_nothing_stays_but_the_names(redis_url: str) -> None:
    """It may be run on a server in use: it leaves no channel and no key, and touches none of others."""
    v2_peers = V2Peers()
    async with running_node(redis_url) as url:
        ann = await v2_peers.register(url, "ann")
        await ann.create("ops")
        await ann.join("ops")
        code, out, err = await examine(url, "--only", "m*")
        assert code == 0, out
        assert err.count("stay taken") == 1
        assert [row["name"] for row in (await ann.ask("channels"))["channels"]] == ["ops"]
        assert await ann.ask("who") == {"sessions": ["ann/laptop/main"]}
        assert ann.events == []
        await v2_peers.close()
        with Redis.from_url(redis_url) as store:
            assert store.hlen("conclave:{dir}:keys") == 1, "only ann's"


async def test_an_invite_lets_it_in(redis_url: str) -> None:
    """Without one, a server with closed registration makes it skip the checks that need a user, with one reason."""
    v2_peers = V2Peers()
    async with running_node(redis_url, admins=ROOT, registration="invite") as url:
        root = await v2_peers.register(url, "root")
        token = (await root.ask("server_invite.create", uses=3))["token"]
        found = await findings(url, "requests")
        outcomes = [each["outcome"] for each in found.values()]
        assert outcomes == ["failed"] + ["skipped"] * (len(outcomes) - 1)
        first = next(iter(found.values()))
        assert "--invite" in first["expected"]
        assert "registration needs a valid invite" in first["got"]
        found = await findings(url, "requests", token)
        assert {each["outcome"] for each in found.values()} == {"ok"}, found
        await v2_peers.close()


# --- Servers with one ---


class Repeats(Tampering):
    """Delivers every message twice."""

    def down(self, frame: Json) -> list[Json | bytes]:
        return [frame, frame] if frame.get("ev") == "message" else [frame]


class Drops(Tampering):
    """Loses the second message of every connection."""

    count = 0

    def down(self, frame: Json) -> list[Json | bytes]:
        self.count += frame.get("ev") == "message"
        return [] if self.count == 2 and frame.get("ev") == "message" else [frame]


class Reorders(Tampering):
    """Keeps every message back until the next one has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Json | bytes] = []

    def down(self, frame: Json) -> list[Json | bytes]:
        if frame.get("ev") != "message":
            return [frame]
        if self.kept:
            return [frame, self.kept.pop()]
        self.kept.append(frame)
        return []


class Echoes(Tampering):
    """Delivers a session's own messages to it."""

    def down(self, frame: Json) -> list[Json | bytes]:
        asked = self.requests.get(frame.get("re"), {})
        if asked.get("op") != "send" or "error" in frame:
            return [frame]
        event = {"ev": "message", "channel": asked["channel"], "from": self.path, "body": asked["body"]}
        return [frame, {**event, "id": frame["id"], "ts": frame["ts"]}]


class Misnumbers(Tampering):
    """Answers with the next request's number."""

    def down(self, frame: Json) -> list[Json | bytes]:
        return [{**frame, "re": frame["re"] + 1} if isinstance(frame.get("re"), int) else frame]


class AnswersTwice(Tampering):
    def down(self, frame: Json) -> list[Json | bytes]:
        return [frame, frame] if "re" in frame else [frame]


class ForgetsTheNumber(Tampering):
    """Answers an invalid request as if it had no number."""

    def down(self, frame: Json) -> list[Json | bytes]:
        return [{**frame, "re": None} if frame.get("error", {}).get("code") == "malformed" else frame]


class IgnoresInvalidRequests(Tampering):
    def down(self, frame: Json) -> list[Json | bytes]:
        return [] if frame.get("error", {}).get("code") == "malformed" else [frame]


class IgnoresKeys(Tampering):
    def up(self, frame: Json) -> list[Json]:
        return [{name: value for name, value in frame.items() if name != "key"}]


class IgnoresPositions(Tampering):
    def up(self, frame: Json) -> list[Json]:
        return [{name: value for name, value in frame.items() if name != "since"}]


class HidesGaps(Tampering):
    def down(self, frame: Json) -> list[Json | bytes]:
        if frame.get("ev") == "gap":
            return []
        return [{**frame, "recovered": True} if "recovered" in frame else frame]


class ReversesHistory(Tampering):
    def down(self, frame: Json) -> list[Json | bytes]:
        return [{**frame, "messages": frame["messages"][::-1]} if "messages" in frame else frame]


class IncludesThePosition(Tampering):
    """Reads `after` as `from`: the message at the position comes again."""

    def down(self, frame: Json) -> list[Json | bytes]:
        after = self.requests.get(frame.get("re"), {}).get("after")
        if "messages" not in frame or after in (None, "0-0"):
            return [frame]
        row = {"id": after, "ts": 1, "from": "a/b/c", "body": {"text": ""}}
        return [{**frame, "messages": [row, *frame["messages"]]}]


class ClosesWithoutAnEvent(Tampering):
    def down(self, frame: Json) -> list[Json | bytes]:
        return [] if frame.get("ev") == "closing" else [frame]


class ClosesWithCode1000(Tampering):
    def close(self, code: int) -> int:
        return 1000 if code > 4000 else code


class SendsAWrongReason(Tampering):
    def down(self, frame: Json) -> list[Json | bytes]:
        return [{**frame, "reason": "gone"} if frame.get("ev") == "left" else frame]


class SendsBinary(Tampering):
    def down(self, frame: Json) -> list[Json | bytes]:
        return [json.dumps(frame).encode() if "re" in frame else frame]


class ChecksNoSignature(Tampering):
    """Accepts every login with a known key, as a server that does not verify signatures."""

    def up(self, frame: Json) -> list[Json]:
        return [frame]

    def down(self, frame: Json) -> list[Json | bytes]:
        if frame.get("ev") != "closing":
            return [frame]
        return [{"ev": "ready", "path": "a/b/c", "admin": False, "heartbeat": 20, "limits": {"message_bytes": 1}}]


class RepeatsTheNonce(Tampering):
    def down(self, frame: Json) -> list[Json | bytes]:
        return [{**frame, "nonce": "A" * 43} if frame.get("ev") == "challenge" else frame]


class HidesTheLimit(Tampering):
    def down(self, frame: Json) -> list[Json | bytes]:
        return [{name: value for name, value in frame.items() if name != "limits"}]


@pytest.mark.parametrize(
    ("defect", "check"),
    [
        (Repeats, "messages.delivery"),
        (Repeats, "resume.what-was-missed"),
        (Drops, "messages.one-order"),
        (Reorders, "resume.what-was-missed"),
        (Echoes, "messages.no-echo"),
        (Misnumbers, "requests.ping"),
        (AnswersTwice, "requests.sent-ahead"),
        (ForgetsTheNumber, "requests.unknown-operation"),
        (IgnoresInvalidRequests, "requests.flaws"),
        (IgnoresKeys, "messages.key"),
        (IgnoresKeys, "whispers.key-of-a-whisper"),
        (IgnoresPositions, "resume.while-others-talk"),
        (HidesGaps, "resume.unknown-position"),
        (ReversesHistory, "history.backwards"),
        (IncludesThePosition, "history.forwards"),
        (ClosesWithoutAnEvent, "closes.no-json-object"),
        (ClosesWithCode1000, "login.superseded"),
        (SendsAWrongReason, "ruling.why-it-left"),
        (SendsBinary, "requests.ping"),
        (ChecksNoSignature, "login.wrong-signature"),
        (RepeatsTheNonce, "login.challenge"),
        (HidesTheLimit, "login.register"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
async def test_a_defect_is_found(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, defect: type[Tampering], check: str
) -> None:
    """By the check that is about it, which passes through the same proxy when that changes nothing."""
    async with running_node(redis_url, handshake_seconds=2.0) as url:
        async with tampering_proxy(url, Tampering) as sound, tampering_proxy(url, defect) as broken:
            assert await findings(sound, check) == {check: _passed(check)}
            impatient(monkeypatch)
            found = await findings(broken, check)
        assert found[check]["outcome"] == "failed"
        assert found[check]["expected"]
        assert found[check]["got"]
        assert found[check]["see"].startswith("docs/protocol.md#")


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the checks wait only for a moment for a message that a defect holds back."""
    monkeypatch.setattr(client, "WAIT_SECONDS", 1.0)
    monkeypatch.setattr(client.Client.until, "__defaults__", (1.0,))


def _passed(name: str) -> dict[str, str]:
    (check,) = (each for each in suite.CHECKS if each.name == name)
    return {"name": name, "outcome": "ok", "promise": check.promise, "see": f"docs/protocol.md#{_slug(check)}"}


async def test_a_server_of_version_1_fails(redis_url: str) -> None:
    """It accepts the connection and selects no subprotocol."""
    async with running_node(redis_url) as url, tampering_proxy(url, Tampering, subprotocol=False) as old:
        code, out, _ = await examine(old, "--only", "upgrade.subprotocol")
        assert code == 1
        assert 'expected: the subprotocol selected of conclave.v2: "conclave.v2"\n        got: null' in out


async def test_a_server_that_never_answers_fails(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wait has an end, and a program that runs in CI has one too."""
    impatient(monkeypatch)

    class Mute(Tampering):
        def down(self, frame: Json) -> list[Json | bytes]:
            return [] if frame else [frame]

    async with running_node(redis_url) as url, tampering_proxy(url, Mute) as mute:
        found = await findings(mute, "requests")
        assert [each["outcome"] for each in found.values()].count("failed") == 1


# --- The program ---


async def test_a_server_that_is_not_there(redis_url: str) -> None:
    """2, which is not a failed check; also for a server that is none of WebSockets."""
    async with running_node(redis_url) as url:
        nowhere = (f"ws://127.0.0.1:{free_port()}", "http://127.0.0.1", "relay.example")
        answers = {each: await asyncio.to_thread(answer, each) for each in nowhere}
        answers[f"{url}health"] = await examine(f"{url}health")
    for each, (code, out, err) in answers.items():
        assert (code, out) == (2, "")
        assert err.startswith(f"{each} cannot be reached: ")


def test_a_command_that_is_wrong() -> None:
    """2, and what to do."""
    for arguments, word in (((), "URL"), (("ws://h", "--only", "nix"), "--list"), (("--nix",), "--nix")):
        code, _, err = answer(*arguments)
        assert code == 2
        assert word in err


def test_the_list_needs_no_server() -> None:
    """A line for each check that was chosen."""
    _, out, _ = answer("--list")
    assert [line.split()[0] for line in out.splitlines()] == [check.name for check in suite.CHECKS]
    _, out, _ = answer("--list", "--only", "login")
    assert {line.split(".")[0] for line in out.splitlines()} == {"login"}
    _, out, _ = answer("--list", "--only", "*.key*")
    assert "messages.key-length" in out


def test_it_shares_no_code_with_the_relay() -> None:
    """A program that judged our server by our own code would find our defects right."""
    folder = Path(suite.__file__).parent
    lines = "\n".join(path.read_text() for path in folder.glob("*.py"))
    modules = {name.partition(".")[0] for name in re.findall(r"^ *(?:from|import) ([\w.]+)", lines, re.MULTILINE)}
    assert modules - sys.stdlib_module_names == {"conclave_conformance", "click", "msgspec", "nacl", "websockets"}


def test_the_script_is_there() -> None:
    """The entry that a package manager makes a program of."""
    scripts = tomllib.loads((ROOT_FOLDER / "conformance" / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["conclave-conformance"].partition(":")
    assert getattr(importlib.import_module(module), name) is main


# --- The checks and the page ---


def _slug(check: Check) -> str:
    return check.heading.lower().replace(" ", "-")


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.name)
def test_a_check_says_what_it_checks_and_where_that_stands(check: Check) -> None:
    """An implementer reads the promise and the heading, and nothing else of it."""
    assert check.promise.endswith((".", ").")), "a sentence of one line"
    assert re.search(rf"^#+ {re.escape(check.heading)}$", PAGE, re.MULTILINE), "a heading of the page"


def test_names_are_unique() -> None:
    """`--only` and the lines of the output go by them."""
    assert len({check.name for check in suite.CHECKS}) == len(suite.CHECKS)


def test_every_frame_of_the_page_is_asked_for() -> None:
    """Each operation, event, error and close stands in the checks, but for what no client can bring about."""
    sources = "\n".join(path.read_text() for path in Path(suite.__file__).parent.glob("*.py"))
    frames = [
        json.loads(line) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
    ]
    names = {frame.get("op", frame.get("ev")) for frame in frames if "op" in frame or "ev" in frame}
    codes = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    closes = set(re.findall(r"^\| (\d{4}) \|", PAGE, re.MULTILINE))
    missing = {each for each in names | codes if f'"{each}"' not in sources}
    missing |= {each for each in closes if f"({each}" not in sources}
    assert missing == {"role", "1011", "1012", "1013", "4003", "4005"}
