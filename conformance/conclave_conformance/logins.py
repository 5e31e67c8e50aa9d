"""The upgrade and the login."""

from conclave_conformance.client import SUBPROTOCOL, Client, Unreachable
from conclave_conformance.company import MACHINE, NONCE_BYTES, Scene, b64, proof, unb64
from conclave_conformance.verdict import Json, Section, Skipped, expect, holds, same

UPGRADE = Section("upgrade")
LOGIN = Section("login")

_TOO_LONG = 256 * 1024
_LOGIN_SECONDS = 10.0

# --- The upgrade ---


@UPGRADE.check("Protocol v2")
async def subprotocol(scene: Scene) -> None:
    """The subprotocol `conclave.v2` is selected when it is offered, alone or among others."""
    for offer in ((SUBPROTOCOL,), ("chat", SUBPROTOCOL)):
        client = await Client.dial(scene.url, offer)
        chosen = client.ws.subprotocol
        await client.close()
        same(chosen, SUBPROTOCOL, f"the subprotocol selected of {', '.join(offer)}")


@UPGRADE.check("Protocol v2")
async def version_1(scene: Scene) -> None:
    """Who does not ask for `conclave.v2` is not given it (optional: such a client gets version 1)."""
    for offer in ((), ("chat",)):
        try:
            client = await Client.dial(scene.url, offer)
        except Unreachable as refused:
            raise Skipped(f"the server speaks version 2 only: {refused}") from None
        chosen = client.ws.subprotocol
        await client.close()
        same(chosen, None, f"the subprotocol selected of {list(offer)}")


@UPGRADE.check("Login")
async def server_id(scene: Scene) -> None:
    """The answer to the upgrade names the cluster in the header `x-conclave-server-id`, as the challenge does."""
    client, challenge = await scene.challenged()
    response = client.ws.response
    got = None if response is None else response.headers.get("x-conclave-server-id")
    same(got, challenge.get("cluster"), "the header `x-conclave-server-id`")


# --- What goes well ---


@LOGIN.check("Login")
async def challenge(scene: Scene) -> None:
    """The challenge has 32 random bytes, the cluster's id and the node, and is another one each time."""
    _, one = await scene.challenged()
    _, other = await scene.challenged()
    for each in (one, other):
        named = all(isinstance(each.get(name), str) and each[name] for name in ("nonce", "cluster", "node"))
        expect(named, "a challenge with `nonce`, `cluster` and `node`", each)
        try:
            size = len(unb64(each["nonce"]))
        except ValueError:
            size = -1
        expect(size == NONCE_BYTES, "a nonce of 32 bytes in base64url without padding", each)
    same(other["cluster"], one["cluster"], "the same cluster for every connection")
    expect(one["nonce"] != other["nonce"], "another nonce for each connection", one)


@LOGIN.check("Login")
async def register(scene: Scene) -> None:
    """A registration ends with `ready`: path, role, heartbeat and the limit of a message."""
    await scene.key("ann")
    ready = scene.company.registered[scene.company.user("ann")]
    holds(ready, "a `ready`", admin=False)
    _complete(ready)


@LOGIN.check("Login")
async def auth(scene: Scene) -> None:
    """A known machine logs in with its key, under the session's name of its hello."""
    session = scene.name()
    client = await scene.enter("ann", session)
    holds(client.ready, "a `ready`", path=f"{scene.company.user('ann')}/{MACHINE}/{session}", admin=False)
    _complete(client.ready)


def _complete(ready: Json) -> None:
    heartbeat = ready.get("heartbeat")
    expect(isinstance(heartbeat, int | float) and heartbeat > 0, "a `heartbeat` in seconds", ready)
    limits = ready.get("limits")
    longest = limits.get("message_bytes") if isinstance(limits, dict) else None
    expect(isinstance(longest, int) and longest > 0, "`limits.message_bytes`", ready)


@LOGIN.check("Protocol v2")
async def unknown_fields(scene: Scene) -> None:
    """Fields that the server does not know are ignored in the messages of a login, too."""
    key, client = await scene.key("ann"), await scene.dial()
    hello = {"op": "hello", "protocol": 2, "session": scene.name(), "origin": scene.origin}
    await client.say({**hello, "colour": "red", "nested": {"op": [1, None]}})
    challenged = await client.event("challenge")
    await client.say({"op": "auth", **proof(key, "auth", challenged, scene.origin), "colour": "red"})
    await client.event("ready")


@LOGIN.check("Login")
async def origin_spelling(scene: Scene) -> None:
    """An origin is compared without regard to case, and the signature is checked over the spelling that was sent."""
    key, client, origin = await scene.key("ann"), await scene.dial(), scene.origin.upper()
    challenged = await scene.company.open(client, scene.name(), origin)
    await client.say({"op": "auth", **proof(key, "auth", challenged, origin)})
    await client.event("ready")


@LOGIN.check("Login")
async def other_origin(scene: Scene) -> None:
    """A login for another address is refused as unauthorized, or taken by a server that was not told its address."""
    key, client, origin = await scene.key("ann"), await scene.dial(), "wss://elsewhere.invalid"
    hello = {"op": "hello", "protocol": 2, "session": scene.name(), "origin": origin}
    await client.say(hello)
    first = await client.until(lambda: client.log[0] if client.log else None, "a challenge or a closing event")
    if first.get("ev") == "challenge":
        await client.say({"op": "auth", **proof(key, "auth", first, origin)})
        await client.event("ready")
    else:
        await client.closes(4006, error="unauthorized")


# --- What is refused ---


@LOGIN.check("Login")
async def unknown_key(scene: Scene) -> None:
    """A key that the server does not know is refused: 4006, unauthorized."""
    client, challenged = await scene.challenged()
    stranger = type(await scene.key("ann")).generate()
    await client.say({"op": "auth", **proof(stranger, "auth", challenged, scene.origin)})
    await client.closes(4006, error="unauthorized")


@LOGIN.check("Closing")
async def name_taken(scene: Scene) -> None:
    """A username that is taken is refused: 4006, conflict (or unauthorized, where an invite is needed)."""
    key = await scene.key("ann")
    client, challenged = await scene.challenged()
    claim = {"op": "register", "user": scene.company.user("ann"), "machine": MACHINE}
    await client.say({**claim, **proof(type(key).generate(), "register", challenged, scene.origin)})
    last = await client.closes(4006)
    expect(last.get("error") in ("conflict", "unauthorized"), "`error` conflict", last)


async def _signed_wrongly(scene: Scene, purpose: str = "auth", origin: str | None = None, **other: str) -> None:
    key = await scene.key("ann")
    client, challenged = await scene.challenged()
    await client.say({"op": "auth", **proof(key, purpose, challenged, origin or scene.origin, **other)})
    await client.closes(4006, error="unauthorized")


@LOGIN.check("Login")
async def wrong_signature(scene: Scene) -> None:
    """A signature by another key than the one that is shown is refused: 4006, unauthorized."""
    key = await scene.key("ann")
    client, challenged = await scene.challenged()
    forged = proof(type(key).generate(), "auth", challenged, scene.origin)
    await client.say({"op": "auth", **forged, "pubkey": b64(bytes(key.verify_key))})
    await client.closes(4006, error="unauthorized")


@LOGIN.check("Login")
async def signed_for_another_cluster(scene: Scene) -> None:
    """A signature over another cluster's id is refused: 4006, unauthorized."""
    await _signed_wrongly(scene, cluster="another")


@LOGIN.check("Login")
async def signed_for_another_origin(scene: Scene) -> None:
    """A signature over another origin than the hello's is refused: 4006, unauthorized."""
    await _signed_wrongly(scene, origin="wss://elsewhere.invalid")


@LOGIN.check("Login")
async def signed_for_another_purpose(scene: Scene) -> None:
    """A signature for `register` does not log in: 4006, unauthorized."""
    await _signed_wrongly(scene, purpose="register")


@LOGIN.check("Login")
async def signed_for_another_connection(scene: Scene) -> None:
    """A signature over another connection's nonce is refused: 4006, unauthorized."""
    _, other = await scene.challenged()
    await _signed_wrongly(scene, nonce=other["nonce"])


@LOGIN.check("Protocol v2")
async def spelling_of_bytes(scene: Scene) -> None:
    """Base64url with padding, or in the other alphabet, is refused: 4007, malformed."""
    key = await scene.key("ann")
    for spoil in (lambda text: f"{text}==", lambda text: f"+{text[1:]}", lambda text: text[:-1]):
        client, challenged = await scene.challenged()
        good = proof(key, "auth", challenged, scene.origin)
        await client.say({"op": "auth", **good, "signature": spoil(good["signature"])})
        await client.closes(4007, error="malformed")


@LOGIN.check("Login")
async def version(scene: Scene) -> None:
    """A hello of another version of the protocol is refused: 4006, version."""
    for number in (1, 3):
        client = await scene.dial()
        await client.say({"op": "hello", "protocol": number, "session": scene.name(), "origin": scene.origin})
        await client.closes(4006, error="version")


@LOGIN.check("Closes")
async def bad_opening(scene: Scene) -> None:
    """Whatever opens a connection and is no `hello` is refused: 4007, malformed."""
    hello = {"op": "hello", "protocol": 2, "session": scene.name(), "origin": scene.origin}
    bad: list[Json | str | bytes] = ["", "hello", "[]", "null", b"{}", b"\x00\x01", '{"id":1,"op":"ping"}']
    bad += [{**hello, "session": name} for name in ("", "a/b", " a", "a\n", "x" * 129, 7, None)]
    bad += [{**hello, "origin": origin} for origin in ("", "relay.example", "http://relay.example", 7)]
    bad += [{name: value for name, value in hello.items() if name != left_out} for left_out in hello]
    bad.append({**hello, "protocol": "2"})
    for opening in bad:
        client = await scene.dial()
        await client.say(opening)
        await client.closes(4007, error="malformed")


@LOGIN.check("Closes")
async def bad_proof(scene: Scene) -> None:
    """After the challenge only a whole `auth` or `register` will do, not a second `hello`: 4007, malformed."""
    key = await scene.key("ann")
    hello = {"op": "hello", "protocol": 2, "session": scene.name(), "origin": scene.origin}
    for bad in (hello, {"id": 1, "op": "ping"}, "[]", {"op": "auth"}, {"pubkey": "AA"}, {"signature": "AA"}):
        client, challenged = await scene.challenged()
        good = {"op": "auth", **proof(key, "auth", challenged, scene.origin)}
        await client.say({**good, **bad} if isinstance(bad, dict) and "op" not in bad else bad)
        await client.closes(4007, error="malformed")


@LOGIN.check("Requests and replies")
async def hello_when_logged_in(scene: Scene) -> None:
    """Once logged in, a `hello` is a request like any other that is not known, and the session goes on."""
    client = await scene.enter("ann")
    hello = '{"op": "hello", "protocol": 2, "session": "x", "origin": "ws://relay.example"%s}'
    holds((await client.raw(hello % "", None))["error"], "an error", code="malformed")
    holds((await client.raw(hello % ', "id": 7', 7))["error"], "an error", code="malformed")
    await client.ask("ping")


@LOGIN.check("Login")
async def too_long(scene: Scene) -> None:
    """A login of more than 64 KiB is refused: 4006, too_large."""
    client = await scene.dial()
    await client.say("x" * _TOO_LONG)
    await client.closes(4006, error="too_large")


@LOGIN.check("Login")
async def too_late(scene: Scene) -> None:
    """A login that is not complete within 10 seconds is refused: 4006."""
    silent = await scene.dial()
    waiting, _ = await scene.challenged()
    for client in (silent, waiting):
        await client.closes(4006, seconds=_LOGIN_SECONDS)


@LOGIN.check("Closes")
async def superseded(scene: Scene) -> None:
    """Of two connections under one path the newer one stays; the older one is closed with 4001."""
    session = scene.name()
    old = await scene.enter("ann", session)
    new = await scene.enter("ann", session)
    await old.closes(4001)
    await new.ask("ping")
    online = await new.ask("who")
    same(online.get("sessions", []).count(new.path), 1, "how often the path is online")
