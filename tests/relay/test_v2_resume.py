"""Coming back with `since`: every message once and in order, up to and into what is said live."""

from nacl.signing import SigningKey

from tests.support.peer2 import Peers2
from tests.support.waiting import wait_until


async def test_what_was_said_meanwhile_comes_first_and_then_what_is_said(url: str, peers2: Peers2) -> None:
    """The reply, the missed messages, the live ones: in this order, each once, with their places in the channel."""
    ann = await peers2.register(url, "ann")
    key = SigningKey.generate()
    bob = await peers2.login(url, key, register=("bob", "desk"))
    await ann.create("ops")
    await ann.join("ops")
    joined = await bob.join("ops")
    assert joined == {"channel": "ops", "position": "0-0", "admin": False}
    first = await ann.post("ops", "1")
    await wait_until(lambda: bob.ids("ops") == [first], what="bob hears")
    await bob.cut()
    missed = [await ann.post("ops", str(i)) for i in range(2, 1200)]
    bob = await peers2.login(url, key)
    joined = await bob.join("ops", since=first)
    assert joined == {"channel": "ops", "position": missed[-1], "recovered": True, "admin": False}
    live = await ann.post("ops", "live")
    await wait_until(lambda: bob.ids("ops")[-1:] == [live], what="bob hears what is said live")
    assert bob.ids("ops") == [*missed, live]
    assert bob.log[0]["position"] == missed[-1], "the reply comes first"
    assert bob.texts("ops")[0] == "2"
