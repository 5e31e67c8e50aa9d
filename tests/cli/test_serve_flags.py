"""The command line and the environment of `serve`."""

import os
from pathlib import Path

import pytest

import relay.launch.serve
from cli.main import run
from relay.app.config import DataDir, Ephemeral, NodeConfig, RedisUrl, Store


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[NodeConfig]:
    """The configurations that a node was started with."""
    configs: list[NodeConfig] = []

    def run_node(config: NodeConfig, *, verbose: bool) -> None:
        assert not verbose
        configs.append(config)

    monkeypatch.setattr(relay.launch.serve, "run", run_node)
    for name in [each for each in os.environ if each.startswith("CONCLAVE_")]:
        monkeypatch.delenv(name)
    return configs


REDIS = "redis://redis:6379/0"
NEAR = "redis://near:6379/0"


@pytest.mark.parametrize(
    ("flags", "env", "store"),
    [
        (["--ephemeral"], {}, Ephemeral()),
        (["--data-dir", "/d"], {}, DataDir(Path("/d"))),
        (["--redis-url", REDIS], {}, RedisUrl(REDIS)),
        (["--redis-url", REDIS, "--redis-read-url", NEAR], {}, RedisUrl(REDIS, NEAR)),
        ([], {"CONCLAVE_REDIS_URL": REDIS, "CONCLAVE_REDIS_READ_URL": NEAR}, RedisUrl(REDIS, NEAR)),
        (["--redis-url", REDIS], {"CONCLAVE_REDIS_READ_URL": NEAR}, RedisUrl(REDIS, NEAR)),
        (["--ephemeral"], {"CONCLAVE_REDIS_URL": REDIS, "CONCLAVE_REDIS_READ_URL": NEAR}, Ephemeral()),
        ([], {"CONCLAVE_DATA_DIR": "/d"}, DataDir(Path("/d"))),
        ([], {"CONCLAVE_REDIS_URL": REDIS, "CONCLAVE_DATA_DIR": ""}, RedisUrl(REDIS)),
        (["--ephemeral"], {"CONCLAVE_DATA_DIR": "/d"}, Ephemeral()),
        (["--redis-url", REDIS], {"CONCLAVE_DATA_DIR": "/d"}, RedisUrl(REDIS)),
        (["--data-dir", "/x"], {"CONCLAVE_DATA_DIR": "/d", "CONCLAVE_REDIS_URL": REDIS}, DataDir(Path("/x"))),
    ],
)
def test_one_store_is_chosen_and_a_flag_overrides_the_environment(
    started: list[NodeConfig], monkeypatch: pytest.MonkeyPatch, flags: list[str], env: dict[str, str], store: Store
) -> None:
    """The container image sets a directory; it can still run ephemeral, or join a cluster."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert run(["serve", *flags]) == 0
    assert [config.store for config in started] == [store]


@pytest.mark.parametrize(
    ("flags", "env", "text"),
    [
        (
            [],
            {},
            (
                "`serve` requires `--data-dir <path>` for persistent storage, `--redis-url <url>` to join a cluster, "
                "or `--ephemeral` for a throwaway in-memory store"
            ),
        ),
        (["--ephemeral", "--data-dir", "/d"], {}, "exclude each other"),
        ([], {"CONCLAVE_DATA_DIR": "/d", "CONCLAVE_REDIS_URL": REDIS}, "exclude each other"),
        (["--ephemeral", "--redis-read-url", NEAR], {}, "is for a replica of"),
        (["--redis-url", "redis://:hunter2/x@a:1/0"], {}, "invalid Redis URL in `--redis-url`: its address"),
        (
            ["--redis-url", REDIS],
            {"CONCLAVE_REDIS_READ_URL": "redis://[::1"},
            "invalid Redis URL in `--redis-read-url`",
        ),
        (["--ephemeral", "--bind", "nowhere"], {}, "invalid address `nowhere`"),
        (["--ephemeral", "--max-message-bytes", "0"], {}, "max-message-bytes"),
        (["--ephemeral", "--admin", "ann=tooshort"], {}, "invalid admin `ann=tooshort`"),
        (["--ephemeral", "--registration", "maybe"], {}, "'open', 'closed', 'invite'"),
        (["--ephemeral"], {"CONCLAVE_REGISTRATION": "Closed"}, "'open', 'closed', 'invite'"),
        (["--ephemeral", "--presence", "nobody"], {}, "'everyone', 'shared'"),
        (["--ephemeral", "--workers", "2"], {}, "cannot have more than one worker"),
        (["--ephemeral", "--metrics-bind", "9464"], {}, "invalid address `9464`"),
        (["--ephemeral", "--drain-delay", "-1"], {}, "invalid drain of -1 seconds"),
        (["--ephemeral", "--drain-seconds", "nan"], {}, "invalid drain of nan seconds"),
        (["--ephemeral"], {"CONCLAVE_DRAIN_SECONDS": "3601"}, "invalid drain of 3601 seconds (expected 0 to 3600)"),
        (["--ephemeral", "--max-gather-ms", "-1"], {}, "invalid time of -1 ms to gather events (expected 0 to 1000)"),
        (["--ephemeral"], {"CONCLAVE_MAX_GATHER_MS": "nan"}, "invalid time of nan ms to gather events"),
        (["--ephemeral"], {"CONCLAVE_LOG_FORMAT": "jsno"}, "invalid CONCLAVE_LOG_FORMAT `jsno` (expected text, json)"),
        (["--ephemeral", "--public-url", "chat.example"], {}, "invalid public URL: invalid server URL `chat.example`"),
    ],
)
def test_an_invalid_configuration_is_a_usage_error(
    started: list[NodeConfig],
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    env: dict[str, str],
    text: str,
) -> None:
    """The exit code is 2, and no node is started."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        assert run(["serve", *flags]) == 2
    assert text in " ".join(capsys.readouterr().err.split())
    assert started == []


def test_flags_reach_the_node(started: list[NodeConfig]) -> None:
    """Every flag has its field in the configuration."""
    flags = ["--bind", "127.0.0.1:0", "--max-message-bytes", "2048", "--key-prefix", "team", "--ephemeral"]
    assert run(["serve", *flags]) == 0
    config = started[0]
    assert (config.host, config.port, config.max_message_bytes, config.key_prefix) == ("127.0.0.1", 0, 2048, "team")


@pytest.mark.parametrize(
    ("flags", "env", "expected"),
    [
        ([], {}, (1, None)),
        (["--workers", "3", "--metrics-bind", "127.0.0.1:9464"], {}, (3, ("127.0.0.1", 9464))),
        ([], {"CONCLAVE_WORKERS": "3", "CONCLAVE_METRICS_BIND": "[::1]:0"}, (3, ("::1", 0))),
        (["--workers", "2"], {"CONCLAVE_WORKERS": "3", "CONCLAVE_METRICS_BIND": ""}, (2, None)),
    ],
)
def test_processes_and_their_metrics_come_from_flags_or_from_the_environment(
    started: list[NodeConfig],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    env: dict[str, str],
    expected: tuple[int, tuple[str, int] | None],
) -> None:
    """A Helm chart sets variables, an operator types flags."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert run(["serve", "--redis-url", REDIS, *flags]) == 0
    assert [(config.workers, config.metrics_address) for config in started] == [expected]


@pytest.mark.parametrize(
    ("flags", "env", "drain"),
    [
        (["--redis-url", REDIS], {}, (5, 20)),
        (["--data-dir", "/d"], {}, (0, 0)),
        (["--ephemeral"], {}, (0, 0)),
        (["--ephemeral", "--drain-delay", "0.5", "--drain-seconds", "3"], {}, (0.5, 3)),
        (["--redis-url", REDIS], {"CONCLAVE_DRAIN_DELAY": "0", "CONCLAVE_DRAIN_SECONDS": "60"}, (0, 60)),
        (["--redis-url", REDIS, "--drain-delay", "1"], {"CONCLAVE_DRAIN_DELAY": "2"}, (1, 20)),
    ],
)
def test_only_a_node_of_a_cluster_drains_by_default(
    started: list[NodeConfig],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    env: dict[str, str],
    drain: tuple[float, float],
) -> None:
    """A single relay on a laptop ends immediately unless configured otherwise."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert run(["serve", *flags]) == 0
    assert [(config.drain_delay, config.drain_seconds) for config in started] == [drain]


@pytest.mark.parametrize(
    ("flags", "env", "seconds"),
    [
        ([], {}, 0.01),
        (["--max-gather-ms", "0"], {"CONCLAVE_MAX_GATHER_MS": "5"}, 0),
        ([], {"CONCLAVE_MAX_GATHER_MS": "2.5"}, 0.0025),
    ],
)
def test_the_time_to_gather_events_comes_from_a_flag_or_from_the_environment(
    started: list[NodeConfig],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    env: dict[str, str],
    seconds: float,
) -> None:
    """It is the one setting that trades latency for throughput."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert run(["serve", "--ephemeral", *flags]) == 0
    assert [config.max_gather_seconds for config in started] == [seconds]


@pytest.mark.parametrize(
    ("flags", "environment"),
    [
        (["--admin", "ann", "--admin", "bob,cy"], "eve"),
        ([], "ann, bob,,cy"),
        (["--admin", " ann , bob", "--admin", "cy"], ""),
    ],
)
def test_administrators_come_from_flags_or_from_the_environment(
    started: list[NodeConfig], monkeypatch: pytest.MonkeyPatch, flags: list[str], environment: str
) -> None:
    """Repeated or separated by commas, never from both sources, and spaces are not part of a name."""
    monkeypatch.setenv("CONCLAVE_ADMINS", environment)
    assert run(["serve", "--ephemeral", *flags]) == 0
    assert started[0].admins.unpinned == ["ann", "bob", "cy"]


@pytest.mark.parametrize(
    ("flags", "env", "policies"),
    [
        ([], {}, ("open", "everyone")),
        (["--registration", "closed", "--presence", "shared"], {}, ("closed", "shared")),
        ([], {"CONCLAVE_REGISTRATION": "invite", "CONCLAVE_PRESENCE": "shared"}, ("invite", "shared")),
        (["--registration", "open"], {"CONCLAVE_REGISTRATION": "closed"}, ("open", "everyone")),
        ([], {"CONCLAVE_REGISTRATION": "", "CONCLAVE_PRESENCE": ""}, ("open", "everyone")),
    ],
)
def test_the_policies_come_from_flags_or_from_the_environment(
    started: list[NodeConfig],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    env: dict[str, str],
    policies: tuple[str, str],
) -> None:
    """The defaults are as open as the original."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert run(["serve", "--ephemeral", *flags]) == 0
    assert [(config.registration, config.presence) for config in started] == [policies]


def test_the_password_of_redis_may_stand_alone(started: list[NodeConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs of an installation read the same Secret; a flag would show it to every user of the machine."""
    monkeypatch.setenv("CONCLAVE_REDIS_PASSWORD", "p/w")
    assert run(["serve", "--redis-url", "redis://a", "--redis-read-url", "redis://near"]) == 0
    assert started[0].store == RedisUrl("redis://:p%2Fw@a", "redis://:p%2Fw@near")


@pytest.mark.parametrize(
    ("flags", "environment", "origins"),
    [
        ([], "", set()),
        (
            ["--public-url", "wss://Chat.example:443/", "--public-url", "ws://10.0.0.1:4390"],
            "wss://other.example",
            None,
        ),
        ([], "wss://chat.example, ws://10.0.0.1:4390", None),
        (["--public-url", "wss://chat.example,ws://10.0.0.1:4390"], "", None),
    ],
)
def test_public_urls_come_from_flags_or_from_the_environment(
    started: list[NodeConfig],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    environment: str,
    origins: set[str] | None,
) -> None:
    """They are compared with the origin that clients sign, so a spelling must not matter."""
    monkeypatch.setenv("CONCLAVE_PUBLIC_URLS", environment)
    assert run(["serve", "--ephemeral", *flags]) == 0
    expected = {"wss://chat.example", "ws://10.0.0.1:4390"} if origins is None else origins
    assert started[0].origins == expected
