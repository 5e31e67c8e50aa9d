"""The verbs for admins of a channel or a server, against a real node."""

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tests.support.command_line import Finished
from tests.support.nodes import NodeProcess
from tests.support.terminal import Terminal

DENIED = "❌ unauthorized: not authorized: admin role required"
TOKEN = re.compile(r"invite token: ([\w-]{32})\n")


Site = Callable[..., AbstractAsyncContextManager[Terminal]]


@pytest.fixture
def site(redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    """A node as its operator starts it, with flags and environment, and `root` as the server's admin."""

    @asynccontextmanager
    async def opened(*flags: str, **environment: str) -> AsyncIterator[Terminal]:
        node = NodeProcess("--redis-url", redis_url, "--admin", "root", *flags, environment=environment)
        try:
            await node.start()
            yield Terminal(tmp_path, node.url, capsys)
        finally:
            await node.close()

    return opened


@pytest.fixture
async def terminal(site: Site) -> AsyncIterator[Terminal]:
    """A site where `root`, the admin of the server, and `ann` and `bob`, ordinary users, have registered."""
    async with site() as terminal:
        for user in ("root", "ann", "bob"):
            assert (await terminal.register(user)).code == 0
        yield terminal


def token(finished: Finished) -> str:
    found = TOKEN.fullmatch(finished.out)
    assert found is not None, finished
    return found[1]


# --- A channel ---


async def test_a_channel_is_renamed_hidden_and_deleted(terminal: Terminal) -> None:
    """Only its creator may do so. A hidden channel is refused like one that does not exist."""
    await terminal.play(
        [
            ("ann", "channel create ops", "✓ ops"),
            ("bob", "channel rename ops mine", DENIED),
            ("bob", "channel set-visibility ops private", DENIED),
            ("bob", "channel delete ops", DENIED),
            ("ann", "channel rename ops deck", "✓ deck"),
            ("bob", "channel list", "deck\tpublic"),
            ("ann", "channel set-visibility deck private", "✓ deck"),
            ("bob", "channel list", ""),
            ("bob", "channel delete deck", "❌ not found: channel `deck` not found"),
            ("ann", "channel list", "deck\tprivate\t(member)"),
            ("root", "channel delete deck", "✓ deck"),
            ("ann", "channel list", ""),
        ]
    )


async def test_an_invite_is_listed_redeemed_and_revoked(terminal: Terminal) -> None:
    """The list shows the remaining uses and the expiry of each token."""
    await terminal.play([("ann", "channel create ops --visibility private", "✓ ops")])
    first = token(await terminal.type("ann", "invite create --channel ops"))
    second = token(await terminal.type("ann", "invite create --channel ops --uses 2 --expires-in 1h"))
    listed = await terminal.type("ann", "invite list --channel ops")
    expires = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S*"
    assert re.search(rf"(?m)^{re.escape(first)}\tuses: unlimited\texpires: never$", listed.out)
    assert re.search(rf"(?m)^{re.escape(second)}\tuses: 2\texpires: {expires}$", listed.out)
    rows = json.loads((await terminal.type("ann", "invite list --channel ops --json")).out)
    assert {(row["token"], row["uses_remaining"]) for row in rows} == {(first, None), (second, 2)}
    await terminal.play(
        [
            ("bob", "invite list --channel ops", "❌ not found: channel `ops` not found"),
            ("bob", f"join ops --token {second}", "✓ joined ops"),
            ("ann", f"invite revoke {first}", f"✓ {first}"),
            ("ann", f"invite revoke {second}", f"✓ {second}"),
            ("ann", "invite list --channel ops", ""),
            ("ann", "invite list --channel ops --json", "[]"),
            ("ann", "acl list --channel ops", "ann\nbob"),
        ]
    )


# --- A server ---


async def test_the_admin_of_a_server_lists_and_removes_users(terminal: Terminal) -> None:
    """The key of a removed user is refused, and their channels are deleted."""
    await terminal.play(
        [
            ("bob", "channel create ops", "✓ ops"),
            ("ann", "user list", DENIED),
            ("ann", "user remove bob", DENIED),
            ("root", "user list", "ann\nbob\nroot"),
            ("root", "user list --json", '["ann","bob","root"]'),
            ("root", "user remove bob", "✓ bob"),
            ("root", "user list", "ann\nroot"),
            ("ann", "channel list", ""),
            ("bob", "channel list", "❌ authentication rejected: unauthorized: unknown machine key"),
        ]
    )


async def test_the_audit_log_shows_every_admin_operation(terminal: Terminal) -> None:
    """Oldest first, with refused operations, without tokens, and for admins of the server only."""
    await terminal.play([("ann", "channel create ops", "✓ ops"), ("bob", "channel delete ops", DENIED)])
    secret = token(await terminal.type("ann", "invite create --channel ops"))
    await terminal.play([("ann", "acl promote --channel ops bob", "✓ bob"), ("ann", "audit", DENIED)])
    finished = await terminal.type("root", "audit")
    rows = [line.split("\t") for line in finished.out.splitlines()]
    assert [(row[1].rpartition("/")[0], *row[2:]) for row in rows] == [
        ("ann/laptop", "create_channel", "ops", "ok"),
        ("bob/laptop", "delete_channel", "ops", "denied"),
        ("ann/laptop", "invite_create", "ops", "ok"),
        ("ann/laptop", "acl_promote", "ops bob", "ok"),
    ]
    assert secret not in finished.out
    newest = await terminal.type("root", "audit --limit 2 --json")
    values = [json.loads(line) for line in newest.out.splitlines()]
    assert [(value["operation"], value["target"]) for value in values] == [
        ("invite_create", "ops"),
        ("acl_promote", "ops bob"),
    ]
    assert [list(value.values()) for value in values] == rows[-2:]


@pytest.mark.parametrize(
    ("flags", "environment"), [(["--registration", "invite"], {}), ([], {"CONCLAVE_REGISTRATION": "invite"})]
)
async def test_a_server_by_invite_registers_users_with_a_token(
    site: Site,
    flags: list[str],
    environment: dict[str, str],
) -> None:
    """The admin whom the operator named needs no token: there must be a first one."""
    async with site(*flags, **environment) as terminal:
        refused = Finished(
            1, "", "❌ registration rejected: unauthorized: registration needs a valid invite to this server\n"
        )
        assert await terminal.register("ann") == refused
        assert await terminal.register("ann", "--invite", "made-up") == refused
        assert (await terminal.register("root")).code == 0
        one = token(await terminal.type("root", "server-invite create --uses 1 --expires-in 1h"))
        as_json = await terminal.type("root", "server-invite create --json")
        assert (await terminal.register("ann", "--invite", one)).out.startswith("✓ registered ann/laptop/")
        assert await terminal.register("bob", "--invite", one) == refused, "it was good for one"
        assert (await terminal.register("bob", "--invite", json.loads(as_json.out)["token"])).code == 0
        await terminal.play([("ann", "server-invite create", DENIED)])
