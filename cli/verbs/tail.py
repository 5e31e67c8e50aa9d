"""`conclave tail`."""

from typing import Any

import click

from cli import output
from cli.follower import Change, Follower, Screen
from cli.lazy import Verb
from cli.options import server_option
from cli.run_async import run
from cli.server_request import dial, transient_handle
from cli.settings import key_path
from conclave.durations import parse
from conclave.machine.keys import load
from conclave.names import NameKind, check_name
from conclave.protocol.body import Body
from conclave.text import visible, visible_body

SEALED = "<end-to-end-encrypted payload>"


@click.command("tail", cls=Verb, example="conclave tail --server wss://chat.example --channel ops --since 1h")
@server_option
@click.option("--channel", required=True, help="The channel.")
@click.option(
    "--as", "handle", metavar="HANDLE", help="The session handle; a session that uses it elsewhere is disconnected."
)
@click.option("--since", metavar="DURATION", help="First show the messages of this time span: 90, 30s, 10m, 2h, 7d.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def command(server: str, channel: str, handle: str | None, since: str | None, as_json: bool) -> None:
    """Follow a channel: one line per message, each message once, across lost connections.

    Continuation lines of a message are indented. Whispers to this session are shown, too. Ctrl-C ends it.
    """
    session = transient_handle() if handle is None else check_name(NameKind.SESSION, handle)
    seconds = None if since is None else parse(since)
    key = load(key_path())
    screen: Screen = _Json() if as_json else _Text(server)
    follower = Follower(lambda: dial(server, key, session), channel, seconds, screen)
    try:
        run(follower.run())
    except KeyboardInterrupt:
        return


class _Text:
    """Prints lines for people."""

    def __init__(self, url: str) -> None:
        self._url = url

    def started(self, channel: str, path: str) -> None:
        output.data(f"tailing #{visible(channel)} as {visible(path)} — Ctrl-C to stop")

    def message(self, channel: str, sender: str, body: Body, _ts_ms: int | None) -> None:
        output.data(f"[{visible(channel)}] {visible(sender)}: {_body(body)}")

    def whisper(self, sender: str, body: Body) -> None:
        output.data(f"[whisper] {visible(sender)}: {_body(body)}")

    def changed(self, change: Change, channel: str) -> None:
        if change is Change.LOST:
            output.notice(f"⚠ connection to `{visible(self._url)}` lost — reconnecting (Ctrl-C to stop)")
        else:
            output.notice(f"✓ reconnected; resuming #{visible(channel)}")

    def renamed(self, old: str, new: str) -> None:
        output.notice(f"⚠ #{visible(old)} is now #{visible(new)}")

    def gap(self, channel: str) -> None:
        output.notice(f"⚠ messages in #{visible(channel)} are lost here: the server does not have them any more")


class _Json:
    """Prints one JSON object per line for scripts. `ts_ms` is null for live messages of v1: they have no time."""

    def started(self, channel: str, path: str) -> None:
        output.document({"event": "started", "channel": channel, "as": path})

    def message(self, channel: str, sender: str, body: Body, ts_ms: int | None) -> None:
        output.document({"event": "message", "channel": channel, "from": sender, "ts_ms": ts_ms, **_fields(body)})

    def whisper(self, sender: str, body: Body) -> None:
        output.document({"event": "whisper", "from": sender, **_fields(body)})

    def changed(self, change: Change, channel: str) -> None:
        output.document({"event": change.value, "channel": channel})

    def renamed(self, old: str, new: str) -> None:
        output.document({"event": "renamed", "channel": old, "to": new})

    def gap(self, channel: str) -> None:
        output.document({"event": "gap", "channel": channel})


def _body(body: Body) -> str:
    return SEALED if body.text is None else visible_body(body.text)


def _fields(body: Body) -> dict[str, Any]:
    if body.sealed is None:
        return {"body": body.text}
    return {"body": None, "sealed": True, "key_id": body.sealed.key_id}
