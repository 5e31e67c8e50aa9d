"""The sentence for a data directory that fails, with the way out. Against the real program, as far as that goes."""

import asyncio
import re
import shlex
from contextlib import suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from relay.model.errors import NodeFailure
from relay.store import PrivateServer, Timing
from relay.store.binary import find_server
from relay.store.diagnosis import explain

IMPATIENT = Timing(grace=1.0, leftover=1.0, backoff=0.01, longest_backoff=0.01, quick_deaths=2)
WRITES = 200


async def write(server: PrivateServer, count: int) -> None:
    async with Redis.from_url(server.url, retry=None) as client:
        for number in range(count):
            await client.set(f"key {number}", "v" * 100)


async def count(server: PrivateServer) -> int:
    async with Redis.from_url(server.url) as client:
        return int(await client.dbsize())


async def written_directory(path: Path) -> Path:
    """Make a directory with some writes in it; returns the file that has them."""
    server = await PrivateServer.start(path)
    try:
        await write(server, WRITES)
    finally:
        await server.stop()
    (file,) = (path / "appendonlydir").glob("*.incr.aof")
    return file


async def failure(path: Path) -> str:
    with pytest.raises(NodeFailure) as failed:
        await PrivateServer.start(path)
    return str(failed.value).partition("; its last line")[0]


async def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """A server that has to write before it replies ends when it cannot; a restart does not help."""
    program = tmp_path / "valkey-server"
    program.write_text(f"#!/bin/sh\ntrap '' XFSZ\nulimit -f 16\nexec '{find_server()}' \"$@\"\n")
    program.chmod(0o755)
    server = await PrivateServer.start(tmp_path / "data", program=program, timing=IMPATIENT)

    async def keep_writing() -> None:
        while True:
            with suppress(RedisError, OSError):
                await write(server, 1_000)
            await asyncio.sleep(0.01)

    writing = asyncio.create_task(keep_writing())
    try:
        async with asyncio.timeout(30):
            with pytest.raises(NodeFailure) as failed:
                await server.supervise()
    finally:
        writing.cancel()
        await server.stop()
    assert f"it cannot write to `{tmp_path / 'data'}`: the disk is full, or fails; make room there" in str(failed.value)


async def test_a_damaged_file_is_named_and_the_command_repairs_it(tmp_path: Path) -> None:
    """The checker is not in the wheel; the server itself is one. What was written before the damage is kept."""
    data = tmp_path / "data"
    file = await written_directory(data)
    written = bytearray(file.read_bytes())
    damage = written.index(b"*3\r\n", len(written) // 2)
    written[damage : damage + 4] = b"#x\r\n"
    file.write_bytes(written)
    said = await failure(data)
    assert f"the file `{file}` is damaged; restore `{data}` from a backup, or to keep what precedes the damage" in said
    found = re.search(r"run `(.*)`$", said)
    assert found is not None, said
    repairing = await asyncio.create_subprocess_shell(
        found[1], cwd=tmp_path, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    await repairing.communicate(b"y\n")
    server = await PrivateServer.start(data)
    try:
        assert 0 < await count(server) < WRITES
    finally:
        await server.stop()


async def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Somebody has tidied up."""
    file = await written_directory(tmp_path)
    file.unlink()
    assert f"the file `{file}` is missing; restore `{tmp_path}` from a backup" in await failure(tmp_path)


async def test_a_damaged_list_of_files_is_named(tmp_path: Path) -> None:
    """Nothing but a backup helps."""
    await written_directory(tmp_path)
    folder = tmp_path / "appendonlydir"
    (folder / "appendonly.aof.manifest").write_text("broken\n")
    assert f"the list of files in `{folder}` is damaged; restore" in await failure(tmp_path)


async def test_a_damaged_base_file_needs_a_backup(tmp_path: Path) -> None:
    """It cannot be cut off at the damage."""
    await written_directory(tmp_path)
    (base,) = (tmp_path / "appendonlydir").glob("*.base.rdb")
    whole = base.read_bytes()
    base.write_bytes(whole[:5] + b"#" * 35 + whole[40:])
    said = await failure(tmp_path)
    assert said.endswith(f"the file `{base}` is damaged; restore `{tmp_path}` from a backup")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "1:M 28 Nov 2026 # Can't handle RDB format version 80",
            "a newer server than `/bin/redis-server` has written `/data`; install that version, or a later one",
        ),
        (
            "1:M 28 Nov 2026 # Can't open the append-only file appendonly.aof.1.incr.aof: Permission denied",
            "files in `/data` belong to another user; give them to the user of this process",
        ),
        (
            "1:M 28 Nov 2026 # Error writing to the AOF file: No space left on device",
            (
                "it cannot write to `/data`: the disk is full, or fails; make room there and start again, "
                "nothing that was acknowledged is lost"
            ),
        ),
        ("1:M 28 Nov 2026 # Out Of Memory allocating 1024 bytes!", ""),
    ],
)
def test_a_line_of_the_server_becomes_a_sentence(line: str, sentence: str) -> None:
    """With what the operator can do; a line that says nothing of the files is left to speak for itself."""
    assert explain(f"something else\n{line}", Path("/data"), Path("/bin/redis-server")) == sentence


def test_the_checker_is_called_as_its_server(tmp_path: Path) -> None:
    """Redis and Valkey look at the name by which they are called; any path survives the shell."""
    lines = "# Bad file format reading the append only file a.incr.aof: make a backup"
    said = explain(lines, tmp_path / "it's", Path("/bin/redis-server"))
    file = shlex.quote(str(tmp_path / "it's" / "appendonlydir" / "a.incr.aof"))
    assert said.endswith(f"`ln -s /bin/redis-server redis-check-aof && ./redis-check-aof --fix {file}`")
