"""The Redis client: the order of commands, its bounds, outages, scripts that Redis forgets, and its end."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from redis import Redis
from redis.asyncio.connection import DefaultParser

from relay.model.errors import StoreDefect, StoreRefused, StoreUnavailable
from relay.observability.metrics import Metrics
from relay.redis import connect, scripts
from relay.redis.client import RedisClient
from relay.redis.connection import SocketConnection
from relay.redis.failures import ErrorReply, code_of, failed_reply
from tests.support.certificate import Certificate, behind_tls, needs_openssl
from tests.support.redis_server import RedisProcess
from tests.support.waiting import pause, wait_until

NUMBERS = list(range(200))
OLD = "ERR Error running script (call to f_bcb6ace698da1dd41daec393761266459b29fadd): @user_script:1: "
"""The beginning of what Redis before version 7 replies."""


@asynccontextmanager
async def running(make: connect.Make, *, seconds: float = 10.0) -> AsyncIterator[RedisClient]:
    """Serve a client."""
    client = RedisClient(make, timeout=seconds, metrics=Metrics(scripts.NAMES))
    serving = asyncio.create_task(client.serve())
    try:
        yield client
    finally:
        serving.cancel()
        await asyncio.wait([serving])


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[RedisClient]:
    async with running(connect.real(redis_url)) as client:
        yield client


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a client send two commands and then wait for replies."""
    monkeypatch.setattr("relay.redis.client._IN_FLIGHT_COMMANDS", 2)


def post(client: RedisClient, payload: str) -> "asyncio.Future[Any]":
    """Post to the log `log`."""
    keys = ("log", "head", "live")
    return client.run(scripts.POST, keys, "ann/a/b", payload, 1000, 3_600_000, 250, 1 << 20, 0, 0, "", "0")


def payloads(entries: Sequence[Any]) -> list[str]:
    """Return the payloads of a reply to XRANGE."""
    return [fields[3].decode() for _, fields in entries]


async def failure(reply: Awaitable[Any]) -> str:
    """Return the reason for which a call fails."""
    with pytest.raises(StoreUnavailable) as raised:
        await reply
    return raised.value.why


# --- Order ---


async def append_as_many_callers(make: connect.Make) -> list[int]:
    """Have 200 tasks append their number to a list. Returns the list."""
    async with running(make) as client:

        async def append(number: int) -> None:
            await client.call("RPUSH", "list", number)

        await asyncio.gather(*(append(number) for number in NUMBERS))
        return [int(number) for number in await client.call("LRANGE", "list", 0, -1)]


async def test_commands_are_executed_in_the_order_of_the_calls(redis_url: str) -> None:
    """So a session may have several posts on their way."""
    assert await append_as_many_callers(connect.real(redis_url)) == NUMBERS


@pytest.mark.usefixtures("small_windows")
async def test_the_order_holds_if_there_is_more_than_may_be_in_flight(redis_url: str) -> None:
    """A burst is cut into pieces."""
    assert await append_as_many_callers(connect.real(redis_url)) == NUMBERS


async def test_the_order_holds_over_uvloop(redis_url: str) -> None:
    """Its transports are not those of asyncio."""
    assert await asyncio.to_thread(uvloop.run, append_as_many_callers(connect.real(redis_url))) == NUMBERS


async def test_the_order_holds_without_a_socket() -> None:
    """The server inside the process is reached in another way."""
    assert await append_as_many_callers(connect.in_process()) == NUMBERS


async def test_the_calls_of_one_turn_are_one_write(client: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write is a system call, and costs more than all else."""
    writes: list[int] = []
    write = SocketConnection.write

    def counting(self: SocketConnection, packed: Sequence[bytes]) -> None:
        writes.append(len(packed))
        write(self, packed)

    await client.call("PING")
    monkeypatch.setattr(SocketConnection, "write", counting)
    await asyncio.gather(*(client.call("PING") for _ in range(50)))
    assert writes == [50]


async def test_a_caller_that_gives_up_takes_its_reply_with_it(client: RedisClient) -> None:
    """The others would get each other's replies."""
    await client.call("PING")
    replies = [client.call("ECHO", number) for number in range(10)]
    replies[3].cancel()  # it has not been sent
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    replies[6].cancel()  # it has been
    kept = [number for number in range(10) if number not in {3, 6}]
    assert [await replies[number] for number in kept] == [b"%d" % number for number in kept]


async def test_a_burst_of_replies_leaves_turns_to_others(client: RedisClient) -> None:
    """A page may come with a thousand replies; heartbeats and sockets have to be served meanwhile."""
    replies = [client.call("ECHO", "x" * 100) for _ in range(1000)]
    done, most = 0, 0
    while done < len(replies):
        await asyncio.sleep(0)
        before, done = done, sum(reply.done() for reply in replies)
        most = max(most, done - before)
    assert most <= 64


async def test_a_large_value_comes_back_whole(client: RedisClient) -> None:
    """It is written and read in many pieces, with others before and behind it."""
    value = bytes(range(256)) * 4096 * 8
    replies = await asyncio.gather(*(client.call("ECHO", part) for part in (b"before", value, b"after", value)))
    assert replies == [b"before", value, b"after", value]


# --- Refusals and bounds ---


async def test_an_error_reply_is_the_error_of_its_own_call(client: RedisClient) -> None:
    """A defect of one command is nobody else's."""
    await client.call("SET", "text", "x")
    before, wrong, after = (
        client.call("ECHO", "before"),
        client.call("RPUSH", "text", "y"),
        client.call("ECHO", "after"),
    )
    assert await failure(wrong) == "WRONGTYPE Operation against a key holding the wrong kind of value"
    assert (await before, await after) == (b"before", b"after")
    assert client.is_up


async def test_a_refusal_of_the_whole_connection_is_an_outage(client: RedisClient) -> None:
    """No later command would fare better; with a new connection they do."""
    refused, after = client.call("AUTH", "nobody", "wrong"), client.call("PING")
    assert await failure(refused) == await failure(after)
    await wait_until(lambda: client.is_up, what="it has connected again")
    assert await client.call("PING") == b"PONG"


async def test_no_more_wait_than_there_is_room_for(
    redis_process: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis that stalls must not fill the memory of its nodes."""
    monkeypatch.setattr("relay.redis.client._IN_FLIGHT_COMMANDS", 4)
    monkeypatch.setattr("relay.redis.client._WAITING_COMMANDS", 8)
    async with running(connect.real(redis_process.url)) as client:
        await client.call("PING")
        redis_process.pause()
        sent = [client.call("PING") for _ in range(4)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting = [client.call("PING") for _ in range(8)]
        assert await failure(client.call("PING")) == "too many commands are waiting"
        assert not any(reply.done() for reply in (*sent, *waiting))
        redis_process.resume()
        assert set(await asyncio.gather(*sent, *waiting)) == {b"PONG"}


async def test_commands_of_many_bytes_wait_for_each_other(client: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in flight stay in memory until they are answered, so their bytes have a bound, too."""
    monkeypatch.setattr("relay.redis.client._IN_FLIGHT_BYTES", 10_000)
    most = 0
    replies = [client.call("ECHO", "x" * 4_000) for _ in range(20)]
    while not all(reply.done() for reply in replies):
        await asyncio.sleep(0)
        most = max(most, len(client._in_flight))
    assert most == 3


# --- Slow commands ---


@pytest.fixture
async def sleeper(tmp_path: Path) -> AsyncIterator[RedisProcess]:
    """A server that can be told to execute nothing for a while."""
    server = RedisProcess(tmp_path, durable=False, settings=("--enable-debug-command", "yes"))
    await server.start()
    try:
        yield server
    finally:
        server.close()


async def test_a_command_that_is_slower_than_the_timeout_is_no_outage(sleeper: RedisProcess) -> None:
    """Redis executes one after the other. Those behind a slow one wait, and the node goes on."""
    async with running(connect.real(sleeper.url), seconds=2.0) as client:
        await client.call("PING")
        slow = client.call("DEBUG", "SLEEP", 2.5)
        await asyncio.sleep(0)
        behind = [client.call("ECHO", n) for n in range(3)]
        assert await asyncio.gather(slow, *behind) == [b"OK", b"0", b"1", b"2"]
        assert client.is_up


async def test_a_late_command_fails_alone_while_others_are_answered(
    sleeper: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is heard meanwhile shows that the connection is alive; the late reply is nobody else's."""
    async with running(connect.real(sleeper.url), seconds=0.5) as client:
        await client.call("PING")
        monkeypatch.setattr(
            SocketConnection, "heard_at", property(lambda _: time.monotonic(), lambda *_: None), raising=False
        )
        late = client.call("DEBUG", "SLEEP", 1.5)
        assert await failure(late) == "not answered within 1 s"
        assert client.is_up
        monkeypatch.undo()
        assert await client.call("ECHO", "after") == b"after"


async def test_a_silence_of_twice_the_timeout_is_an_outage(sleeper: RedisProcess) -> None:
    """The connection may be one that a firewall has forgotten."""
    async with running(connect.real(sleeper.url), seconds=0.4) as client:
        await client.call("PING")
        slow, behind = client.call("DEBUG", "SLEEP", 2), client.call("PING")
        assert {await failure(slow), await failure(behind)} == {"TimeoutError"}
        assert not client.is_up
        await wait_until(lambda: client.is_up, what="it has connected again")


# --- Error replies ---


@pytest.mark.parametrize(
    ("text", "code", "kind"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", "OOM", StoreRefused),
        (f"{OLD}@user_script: 1: -OOM command not allowed when used memory > 'maxmemory'.", "OOM", StoreRefused),
        (f"{OLD}@user_script: 1: -NOREPLICAS Not enough good replicas to write.", "NOREPLICAS", StoreRefused),
        (f"{OLD}WRONGTYPE Operation against a key holding the wrong kind of value", "WRONGTYPE", StoreDefect),
        (f"{OLD}user_script:1: Script attempted to access nonexistent global variable 'x'", "ERR", StoreDefect),
        (f"{OLD}@user_script: 1: The user executing the script can't run this command", "NOPERM", StoreRefused),
        ("ERR ACL failure in script: User default has no permissions to run 'zadd'", "NOPERM", StoreRefused),
        ("NOPERM No permissions to access a key", "NOPERM", StoreRefused),
        ("READONLY You can't write against a read only replica. script: on @user_script:1.", "READONLY", StoreRefused),
        ("ERR unknown command 'FOO', with args beginning with: secret", "ERR", StoreDefect),
        ("Unheard of", "ERR", StoreDefect),
    ],
)
def test_the_code_of_a_reply_says_what_it_means(text: str, code: str, kind: type[StoreUnavailable]) -> None:
    """As Redis 6.2, Redis 7 and Valkey write them, in scripts and outside."""
    reply = ErrorReply(text)
    assert reply.code == code
    failed = failed_reply(reply)
    assert type(failed) is kind
    assert "secret" not in failed.why


def test_what_redis_py_has_read_has_the_same_code() -> None:
    """It takes the code off the text of those that it knows."""
    for text, code in (("LOADING Redis is loading the dataset in memory", "LOADING"), ("WRONGPASS no", "WRONGPASS")):
        assert code_of(DefaultParser.parse_error(text)) == code  # type: ignore[no-untyped-call]
    assert code_of(OSError("OOM")) is None


# --- Outages ---


async def test_an_outage_fails_everything_at_once_and_ends(redis_process: RedisProcess) -> None:
    """Whatever waits, and whatever is called until Redis is back."""
    ups: list[bytes] = []
    async with running(connect.real(redis_process.url)) as client:

        async def came_up() -> None:
            ups.append(await client.call("PING"))

        client.on_up(came_up)
        await client.call("PING")
        assert not ups, "the first connection ends no outage"
        redis_process.pause()
        pending = [client.call("PING") for _ in range(3)]
        await asyncio.sleep(0)
        redis_process.kill()
        reasons = {await failure(reply) for reply in pending}
        assert len(reasons) == 1
        assert not client.is_up
        refused = client.call("PING")
        assert refused.done(), "it fails in the same turn"
        await failure(refused)
        await redis_process.restart()
        await wait_until(lambda: ups, what="the callbacks have run")
        assert ups == [b"PONG"]
        await post(client, "after")
        with Redis.from_url(redis_process.url) as store:
            assert "errorstat_NOSCRIPT" not in store.info("errorstats"), "the scripts were loaded before they were run"


async def stall(process: RedisProcess) -> None:
    async with running(connect.real(process.url), seconds=0.3) as client:
        for delay in range(5):
            await wait_until(lambda: client.is_up, what="it has connected again")
            assert await client.call("ECHO", delay) == b"%d" % delay
            await pause(delay / 20)  # the timer runs since the first call
            process.pause()
            async with asyncio.timeout(20):
                assert await failure(client.call("PING")) == "TimeoutError"
                await failure(client.call("PING"))
            process.resume()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
async def test_a_redis_that_does_not_answer_is_away_after_the_timeout(
    redis_process: RedisProcess, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    """A stalled machine keeps its connections open."""
    await asyncio.to_thread(run, stall(redis_process))


async def test_a_command_that_cannot_be_sent_in_time_fails_alone(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too much to do is no outage."""
    monkeypatch.setattr("relay.redis.client._IN_FLIGHT_COMMANDS", 1)
    async with running(connect.real(redis_url), seconds=1.5) as client:
        await client.call("PING")
        blocking = [client.call("BLPOP", "none", 1) for _ in range(4)]
        async with asyncio.timeout(20):
            assert [await blocking[0], await blocking[1]] == [None, None]
            assert {await failure(late) for late in blocking[2:]} == {"not sent within 1.5 s"}
        assert client.is_up


async def test_a_node_that_was_held_up_reads_before_it_judges(client: RedisClient) -> None:
    """A process that was stopped for a while finds the replies in its socket, and has no reason to complain."""
    client._timeout = 0.2
    await client.call("PING")
    reply = client.call("PING")
    await asyncio.sleep(0)
    subprocess.run(["sleep", "0.5"], check=True)  # noqa: ASYNC221, S607 - the loop is to stand still
    assert await reply == b"PONG"
    assert client.is_up


# --- Scripts ---


async def test_scripts_that_redis_forgets_are_loaded_and_run_in_their_order(client: RedisClient) -> None:
    """An operator may say SCRIPT FLUSH at any time; no post may fail, come twice or change places for it."""
    replies = [post(client, str(number)) for number in range(5)]
    client.call("SCRIPT", "FLUSH")
    replies += [post(client, str(number)) for number in range(5, 10)]
    between = client.call("XLEN", "log")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    replies += [post(client, str(number)) for number in range(10, 15)]  # after the ones that have been refused by now
    ids = await asyncio.gather(*replies)
    assert await between == 5
    entries = await client.call("XRANGE", "log", "-", "+")
    assert [entry for entry, _ in entries] == ids
    assert payloads(entries) == [str(number) for number in range(15)]


async def test_no_run_comes_after_a_later_one(client: RedisClient) -> None:
    """Another node loads the script between two posts of a session: the earlier one fails, and is not posted late."""
    await post(client, "before")
    client.call("SCRIPT", "FLUSH")
    overtaken = post(client, "overtaken")
    client.call("SCRIPT", "LOAD", scripts.POST.text)
    later = post(client, "later")
    assert await failure(overtaken) == "Redis did not know the script"
    await later
    await post(client, "after")
    assert payloads(await client.call("XRANGE", "log", "-", "+")) == ["before", "later", "after"]


async def test_a_script_that_cannot_be_loaded_is_not_tried_for_ever(client: RedisClient, redis_url: str) -> None:
    """Redis may not let this user load scripts any more."""
    await client.call("PING")
    with Redis.from_url(redis_url) as store:
        store.execute_command("ACL", "SETUSER", "default", "-script|load")
        try:
            store.script_flush()
            async with asyncio.timeout(20):
                assert "No matching script" in await failure(post(client, "lost"))
            assert await client.call("PING") == b"PONG"
        finally:
            store.execute_command("ACL", "SETUSER", "default", "+script|load")


async def test_the_server_in_the_process_forgets_scripts_too() -> None:
    """Its connection has no socket, and the same rules."""
    async with running(connect.in_process()) as client:
        await post(client, "0")
        client.call("SCRIPT", "FLUSH")
        await asyncio.gather(post(client, "1"), post(client, "2"))
        assert payloads(await client.call("XRANGE", "log", "-", "+")) == ["0", "1", "2"]


# --- Connections ---


async def scripted(*replies: bytes) -> tuple[asyncio.Server, str]:
    """Start a server that gives one of these answers to whatever it receives, and ends when it has none."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in replies:
            await reader.read(65536)
            writer.write(reply)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    "replies",
    [
        (b"+OK\r\n+OK\r\n", b"+MORE\r\n" * 3),
        (b"+OK\r\n+OK\r\n", b"+MORE\r\n" * 4),
        (b"+OK\r\n+OK\r\n", b"+MORE\r\n" * 5),
        (b"+OK\r\n+OK\r\n",),
        (b"HTTP/1.1 400\r\n",),
    ],
)
async def test_a_connection_is_checked_before_it_is_used(replies: tuple[bytes, ...]) -> None:
    """Replies that nobody asked for would be taken for those to the first commands."""
    server, url = await scripted(*replies)
    async with server:
        client = RedisClient(connect.real(url), timeout=2.0, metrics=Metrics(()))
        await failure(client.connection())


async def seal(url: str) -> None:
    """Send and receive much and little, and connect again."""
    async with running(connect.real(url)) as client:
        value = b"x" * 1_000_000
        assert await asyncio.gather(*(client.call("ECHO", value) for _ in range(5))) == [value] * 5
        await post(client, "sealed")
        client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
        await wait_until(lambda: not client.is_up, what="the connection is lost")
        await wait_until(lambda: client.is_up, what="it has connected again")
        assert await client.call("PING") == b"PONG"


@needs_openssl
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
async def test_tls_carries_the_same(
    redis_url: str, tmp_path: Path, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    """Its transports are others, those of asyncio and those of uvloop."""
    async with behind_tls(redis_url, Certificate(tmp_path, "IP:127.0.0.1")) as url:
        await asyncio.to_thread(run, seal(url))


# --- The end ---


@pytest.mark.parametrize("turns", range(8))
async def test_it_ends_at_any_step_of_a_command(redis_url: str, turns: int) -> None:
    """A node that was told to stop has to: its supervisor would kill it in the end, with its sessions' last words."""
    client = RedisClient(connect.real(redis_url), timeout=2.0, metrics=Metrics(()))
    serving = asyncio.create_task(client.serve())
    await client.call("PING")
    asked = client.call("SET", "x", "y" * 1000)
    for _ in range(turns):
        await asyncio.sleep(0)
    serving.cancel()
    ended, _ = await asyncio.wait([serving], timeout=10)
    assert ended
    await asyncio.wait([asked], timeout=10)
    assert asked.done()
    asked.exception()


async def test_what_is_asked_after_its_end_fails_at_once(redis_url: str) -> None:
    """Sessions that are closed late have things to tell Redis, too; they would hold up the end of the process."""
    async with running(connect.real(redis_url)) as client:
        await client.call("PING")
    refused = client.call("PING")
    assert refused.done()
    assert await failure(refused) == "the node is shutting down"
