"""Hostile text from people and servers through a live bridge: every line is checked as it arrives."""

import re
import unicodedata
from collections.abc import AsyncIterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from conclave.machine.config import Level, Registration
from conclave.machine.config_edit import register, set_default
from conclave.machine.keys import create_or_load
from conclave.machine.locations import CONFIG_NAME, KEY_NAME
from conclave.model import ChannelInfo, InviteInfo, Plain, SessionPath, Visibility
from conclave.protocol.v1.frames import (
    ChannelMsg,
    Established,
    InviteList,
    MalformedFrame,
    NotFound,
    Unauthorized,
    Whisper,
)
from tests.support.bridge_process import RawBridge, configure_home
from tests.support.hostile import BODIES, MIB, MIB_BODIES, NAMES, opens_a_tag
from tests.support.nodes import NodeProcess
from tests.support.original_server import OriginalServer
from tests.support.peer import Peers
from tests.support.scripted_server import ScriptedServer
from tests.support.trials import by_form
from tests.support.waiting import wait_until

BOB = SessionPath("bob", "desk", "x")

LINE_BYTES = 8 * MIB
"""No character takes more than a few others to be written out."""
RESIDENT_BYTES = 256 * MIB

MORE = r"There is more: call catch_up again with `after` = `(.*)`, to read on\."

UNSEEN = frozenset({"Cc", "Cs", "Zl", "Zp"})


def encodable(text: str) -> bool:
    """Tell if v1 can express it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


SENDABLE = [body for body in BODIES if encodable(body)]
NAMEABLE = [name for name in NAMES if encodable(name)]
LARGE = {
    kind: MIB_BODIES[kind] for kind in ("lines", "openers", "tags", "spaced tags", "NUL", "emoji", "tag characters")
}
"""As large as a relay lets them be: what grows most, and what takes longest to look through."""


def check(text: str) -> None:
    """No text that the model sees opens a tag, moves the cursor or ends a line by itself."""
    assert not opens_a_tag(text)
    assert all(char in "\n\t" or unicodedata.category(char) not in UNSEEN for char in text)


def check_event(event: dict[str, Any]) -> None:
    assert event.keys() == {"content", "meta"}
    meta = event["meta"]
    assert meta["kind"] in {"channel", "whisper", "link", "error"}
    assert meta.keys() <= {"server", "channel", "from", "kind"}
    assert all(value.isprintable() and not set(value) & set('"<>') for value in meta.values())
    assert not opens_a_tag(" ".join(meta.values()))
    check(event["content"])
    if meta["kind"] in {"link", "error"}:
        assert "\n" not in event["content"], "a notice is one line"


def _shown(one: RawBridge, count: int) -> bool:
    return len(one.events) == count


def check_line(text: str) -> None:
    check(text)
    assert "\n" not in text


async def read_all(one: RawBridge, since: str) -> list[str]:
    """Return all pages of #ops, each of which ends with the call for the next one."""
    pages = [await one.tool("catch_up", channel="ops", since=since)]
    while found := re.fullmatch(MORE, pages[-1].rsplit("\n", 1)[-1]):
        pages.append(await one.tool("catch_up", channel="ops", after=found[1]))
    return pages


@pytest.fixture
async def original() -> AsyncIterator[OriginalServer]:
    async with ScriptedServer().running() as server:
        yield OriginalServer(server)


@pytest.fixture
def home(tmp_path: Path, original: OriginalServer) -> Path:
    """A configuration directory that is registered at the original, with agents that may answer."""
    create_or_load(tmp_path / KEY_NAME)
    register(tmp_path / CONFIG_NAME, Registration(original.server.url, "ann", "laptop"))
    set_default(tmp_path / CONFIG_NAME, Level.CONVERSE)
    return tmp_path


async def test_bodies_and_senders_of_any_kind_are_shown(original: OriginalServer, home: Path) -> None:
    """Live, as whispers, and read again: in as many rows as there were messages."""
    paths = [SessionPath(name, NAMEABLE[-n], NAMEABLE[n // 2]) for n, name in enumerate(NAMEABLE)]
    async with RawBridge(home, "--as", "me") as one:
        await one.tool("join_channel", channel="ops")
        for number, body in enumerate(SENDABLE):
            await original.post("ops", paths[number % len(paths)], body)
        for path in paths:
            await original.whisper(path, "hi")
        count = len(SENDABLE) + len(paths)
        await wait_until(lambda: len(one.events) == count, timeout=60, what="everything was shown")
        for event in one.events:
            check_event(event)
        pages = await read_all(one, "7000d")
        for page in pages:
            check(page)
            assert page.split("\n") == page.splitlines(), "in every reader's idea of a line"
        assert sum(line.startswith("[") for page in pages for line in page.split("\n")) == len(SENDABLE)
        assert one.longest_line < MIB


async def test_listings_of_any_names_are_one_line_each(original: OriginalServer, home: Path) -> None:
    """Sessions, channels, members, bans and invites."""
    original.online = [SessionPath(name, name, name) for name in NAMEABLE]
    original.channels = [ChannelInfo(name, Visibility.PUBLIC, member=True) for name in NAMEABLE]
    original.users = tuple(NAMEABLE)
    original.invites = InviteList(tuple(InviteInfo(name, 1, name) for name in NAMEABLE))
    async with RawBridge(home, "--as", "me") as one:
        await one.tool("join_channel", channel="ops")
        check_line(await one.tool("who"))
        check_line(await one.tool("who", channel="ops"))
        for tool in ("acl_list", "ban_list"):
            check_line(await one.tool(tool, channel="ops"))
        for listing in (await one.tool("list_channels"), await one.tool("invite_list", channel="ops")):
            check(listing)
            assert len(listing.splitlines()) == len(NAMEABLE)


def _more(one: RawBridge, text: str, before: int) -> bool:
    return len(one.events_with(text)) > before


async def test_channels_of_any_name_are_joined_renamed_and_left(original: OriginalServer, home: Path) -> None:
    """The agent joins each; then another user renames it to the next one."""
    async with RawBridge(home, "--as", "me") as one:
        for name in NAMEABLE:
            check_line(await one.tool("join_channel", channel=name))
            check_line(await one.tool("send_channel", channel=name, text="hi"))
            check_line(await one.tool("leave_channel", channel=name))
    names = [name for name in dict.fromkeys(NAMEABLE) if name]
    async with RawBridge(home, "--as", "me") as one:
        await one.tool("join_channel", channel=names[0])
        for old, new in pairwise(names):
            told = len(one.events_with("is now called"))
            original.rename(old, new)
            await original.post(new, BOB, "hi")
            await wait_until(partial(_more, one, "is now called", told), timeout=15, what="the new name is reported")
        assert len(one.events_with("is now called")) == len(names) - 1
        for event in one.events:
            check_event(event)


async def test_refusals_with_any_text_are_one_line(original: OriginalServer, home: Path) -> None:
    """Of a request, of a login, of a channel that was joined before; and the text of a close."""
    async with RawBridge(home, "--as", "me") as one:
        for body in SENDABLE:
            original.refusal = NotFound(body)
            check_line(await one.refused("who"))
        original.refusal = None
        everything = " ".join(NAMEABLE)
        await one.tool("join_channel", channel=everything)
        original.refusal = Unauthorized(everything)
        await original.server.connections[-1].kill(Unauthorized(everything))
        await one.wait_for_event("Could not join")
        original.server.refuse = [Unauthorized(everything)]
        await original.server.connections[-1].kill(MalformedFrame(everything))
        await one.wait_for_event("refused this machine")
        original.refusal = None
        await one.wait_for_event("Reconnected to")
        assert "ann/laptop/me" in await one.tool("who")
        for event in one.events:
            check_event(event)


async def test_invalid_frames_of_a_server_cost_a_connection_at_most(original: OriginalServer, home: Path) -> None:
    """Frames that cannot be read, frames of a login, messages for other sessions and text messages; then it goes on."""
    async with RawBridge(home, "--as", "me") as one:
        await one.tool("join_channel", channel="ops")
        connection = original.server.connections[-1]
        surrogate = "\ud800".encode("utf-8", "surrogatepass")
        for data in (b"", b"\xff", bytes(range(255, 0, -1)), b"\x09\x03" + surrogate, b"\x09" + b"\xff" * 40):
            await connection.socket.send_bytes(data)
        await connection.socket.send_str('{"jsonrpc":"2.0","id":1,"result":{}}\n')
        await connection.send(Whisper(BOB, BOB, Plain("for somebody else")))
        await connection.send(ChannelMsg("ops", BOB, Plain("on we go")))
        await one.wait_for_event("on we go")
        await connection.send(Established(BOB))
        await wait_until(lambda: len(original.server.connections) == 2, what="it is connected again")
        assert "ann/laptop/me" in await one.tool("who")
        for event in one.events:
            check_event(event)


async def test_arguments_of_any_kind_are_answered(
    nodes: list[NodeProcess], home: Path, original: OriginalServer
) -> None:
    """A message may make an agent forward hostile text; our relay refuses most of it, with its own texts."""
    await configure_home(home, "ann", nodes[0].url)
    async with RawBridge(home, "--as", "me", "--server", nodes[0].url) as one:
        for text in (*BODIES, *NAMES)[:: by_form(5, 1, 1)]:
            for tool, arguments in (
                ("join_channel", {"channel": text}),
                ("whisper", {"target": text, "text": text}),
                ("who", {"channel": text}),
                ("who", {"server": text}),
                ("catch_up", {"channel": "ops", "since": text}),
                ("catch_up", {"channel": "ops", "after": text}),
                (text, {}),
                ("who", {text: text}),
            ):
                answer, _ = await one.attempt(tool, **arguments)
                check_line(answer)
        assert "ann/laptop/me" in await one.tool("who")
    assert original.server.connections == []


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_a_mebibyte_of_any_text_is_delivered(nodes: list[NodeProcess], peers: Peers, tmp_path: Path) -> None:
    """Each is shown live and can be read again; neither a line nor the process grows beyond its bounds."""
    poster = await peers.register_creator(nodes[1].url, "poster", "ops")
    await configure_home(tmp_path, "ann", nodes[0].url)
    async with RawBridge(tmp_path, "--as", "me") as one:
        await one.tool("join_channel", channel="ops")
        for number, (kind, body) in enumerate(LARGE.items(), 1):
            await poster.post("ops", body)
            await wait_until(partial(_shown, one, number), timeout=60, what=f"{kind} is shown")
        pages = await read_all(one, "1h")
        assert len(pages) >= len(LARGE)
        for text in (*(event["content"] for event in one.events), *pages):
            check(text[:2000] + text[-2000:])
        assert one.longest_line < LINE_BYTES
        assert one.most_resident_bytes() < RESIDENT_BYTES
        assert "ann/laptop/me" in await one.tool("who")
