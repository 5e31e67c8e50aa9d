"""The published protocol: the code reads and writes every example, no message is missing, and the client works."""

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nacl.signing import SigningKey

from conclave.errors import Code
from conclave.protocol import events, requests, v2
from conclave.protocol.v2.close_codes import CloseCode
from conclave.protocol.v2.login import Auth, Challenge, Hello, Ready, Register
from tests.support.nodes import running_node
from tests.support.v2_peer import V2Peer, b64
from tests.support.waiting import wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
LOGIN: dict[str, type[msgspec.Struct]] = {
    "hello": Hello,
    "auth": Auth,
    "register": Register,
    "challenge": Challenge,
    "ready": Ready,
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def examples() -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Every frame; a reply comes with its request."""
    for block in blocks("json"):
        asked: dict[int, dict[str, Any]] = {}
        for line in block.splitlines():
            frame = json.loads(line)
            if "op" in frame and "id" in frame:
                asked[frame["id"]] = frame
            yield frame, asked.get(frame.get("re"))


EXAMPLES = list(examples())


def written(frame: dict[str, Any], asked: dict[str, Any] | None) -> bytes:
    """Read a frame into its struct and write it again."""
    text = json.dumps(frame)
    name = frame.get("op", frame.get("ev"))
    if name in LOGIN:
        return msgspec.json.encode(msgspec.json.decode(text, type=LOGIN[name]))
    if "op" in frame:
        incoming = v2.decode_request(text)
        return v2.encode_request(incoming.id, incoming.request)
    message = v2.decode_message(text)
    if isinstance(message, events.Event):
        return v2.encode_event(message)
    assert isinstance(message, v2.Reply)
    if message.refusal is not None:
        return v2.encode_error(message.re, message.refusal)
    assert message.re is not None
    assert asked is not None, "a reply stands behind its request"
    return v2.encode_result(message.re, v2.decode_result(message, type(v2.decode_request(json.dumps(asked)).request)))


@pytest.mark.parametrize(("frame", "asked"), EXAMPLES, ids=lambda value: json.dumps(value)[:40])
def test_the_code_reads_and_writes_every_example(frame: dict[str, Any], asked: dict[str, Any] | None) -> None:
    """Field by field: an example with a field that does not exist would mislead its readers."""
    assert json.loads(written(frame, asked)) == frame


def test_every_message_has_an_example() -> None:
    """Each operation with its reply, each event, each step of a login."""
    ops = {frame["op"] for frame, _ in EXAMPLES if "op" in frame}
    answered = {asked["op"] for _, asked in EXAMPLES if asked is not None}
    evs = {frame["ev"] for frame, _ in EXAMPLES if "ev" in frame}
    operations = {type_.__struct_config__.tag for type_ in requests.Request.__subclasses__()}
    assert ops == operations | {"hello", "auth", "register"}
    assert answered == operations
    assert evs == {type_.__struct_config__.tag for type_ in events.Event.__subclasses__()} | {"challenge", "ready"}


def test_every_field_has_an_example() -> None:
    """Optional ones, too."""
    shown: dict[str, set[str]] = {}
    for frame, _ in EXAMPLES:
        shown.setdefault(frame.get("op") or frame.get("ev") or "", set()).update(frame)
    for type_ in (*requests.Request.__subclasses__(), *events.Event.__subclasses__(), *LOGIN.values()):
        missing = set(type_.__struct_encode_fields__) - shown[str(type_.__struct_config__.tag)]
        assert not missing, type_


def test_every_code_is_explained() -> None:
    """Of errors and of closes."""
    for code in Code:
        assert f"| `{code.value}` |" in PAGE
    for close in CloseCode:
        assert f"| {int(close)} |" in PAGE


class Script:
    """The page's client, run as a program of its own."""

    def __init__(self, folder: Path) -> None:
        (source,) = blocks("python")
        assert len(source.splitlines()) <= 50
        assert "conclave import" not in source
        self._path = folder / "client.py"
        self._path.write_text(source)
        self.lines: list[str] = []

    async def run(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start the program and collect its output."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", str(self._path), *arguments),
            stdout=asyncio.subprocess.PIPE,
            cwd=self._path.parent,
            env={},
        )
        self.lines = []
        self._reading = asyncio.create_task(self._read(process))
        return process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.lines.append(line.decode().rstrip())

    async def end(self, process: asyncio.subprocess.Process) -> None:
        process.kill()
        await process.wait()
        await self._reading


async def test_the_client_works(redis_url: str, tmp_path: Path) -> None:
    """It registers, joins, posts a greeting, is killed, and receives afterwards what it has missed."""
    key, script = b64(bytes(SigningKey.generate())), Script(tmp_path)
    async with running_node(redis_url) as url:
        bob = await V2Peer.register(url, "bob")
        await bob.create("ops")
        await bob.join("ops")
        process = await script.run(url, key, "register", "ann", "ops")
        try:
            await wait_until(lambda: bob.texts("ops") == ["hello"], what="bob is greeted", timeout=20)
            assert script.lines[0] == "logged in as ann/script/main"
            first = await bob.post("ops", "hi")
            await wait_until(lambda: script.lines[-1] == f"{first} bob/laptop/main hi", what="the client gets it")
        finally:
            await script.end(process)
        missed = [await bob.post("ops", text) for text in ("one", "two")]
        process = await script.run(url, key, "auth", "ann", "ops", first)
        try:
            await wait_until(lambda: len(script.lines) == 4, what="the client has resumed", timeout=20)
        finally:
            await script.end(process)
        assert script.lines[1:] == [
            f"{missed[1]} joined recovered",
            f"{missed[0]} bob/laptop/main one",
            f"{missed[1]} bob/laptop/main two",
        ]
        await bob.close()
