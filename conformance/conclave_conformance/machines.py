"""A user's machines: each has a key, and may be revoked."""

from nacl.signing import SigningKey

from conclave_conformance.company import MACHINE, Scene, b64, proof, username
from conclave_conformance.verdict import Section, expect, holds, same

MACHINES = Section("machines")

_HEADING = "Machines and the server"


@MACHINES.check(_HEADING)
async def added(scene: Scene) -> None:
    """A key that was added logs in as that machine; the listing shows it."""
    ann, key, machine = await scene.enter("ann"), SigningKey.generate(), scene.name()
    added_one = await ann.ask("machine.add", machine=machine, pubkey=b64(bytes(key.verify_key)))
    holds(added_one, "a result", machine=machine)
    rows = {row.get("name"): row for row in (await ann.ask("machines")).get("machines", [])}
    expect({MACHINE, machine} <= rows.keys(), f"`{MACHINE}` and `{machine}`", list(rows))
    same(rows[machine].get("pubkey"), b64(bytes(key.verify_key)), "the key in the listing")
    expect(isinstance(rows[machine].get("added_at"), str), "a time `added_at`", rows[machine])
    client = await scene.company.enter(await scene.dial(), key, session := scene.name())
    same(client.path, f"{username(ann)}/{machine}/{session}", "the path")
    await ann.ask("machine.remove", machine=machine)


@MACHINES.check("Closes")
async def revoked(scene: Scene) -> None:
    """The sessions of a machine that is removed are closed with 4002, and its key does not log in any more."""
    ann, key, machine = await scene.enter("ann"), SigningKey.generate(), scene.name()
    await ann.ask("machine.add", machine=machine, pubkey=b64(bytes(key.verify_key)))
    client = await scene.company.enter(await scene.dial(), key, scene.name())
    holds(await ann.ask("machine.remove", machine=machine), "a result", machine=machine)
    await client.closes(4002)
    again, challenge = await scene.challenged()
    await again.say({"op": "auth", **proof(key, "auth", challenge, scene.origin)})
    await again.closes(4006, error="unauthorized")
    await ann.ask("ping")


@MACHINES.check(_HEADING)
async def flaws(scene: Scene) -> None:
    """A name or a key that cannot be one is `malformed`, a machine's name that is taken a `conflict`."""
    ann, good = await scene.enter("ann"), b64(bytes(SigningKey.generate().verify_key))
    for bad in ("", "AA", f"{good}=", good[:-1]):
        await ann.refused("machine.add", "malformed", machine=scene.name(), pubkey=bad)
    await ann.refused("machine.add", "malformed", machine="a/b", pubkey=good)
    await ann.refused("machine.add", "conflict", machine=MACHINE, pubkey=good)
