"""`wss://`: whom the client trusts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from conclave.machine.keys import create_or_load
from tests.support.certificate import Certificate, needs_openssl
from tests.support.command_line import Finished, conclave
from tests.support.scripted_server import ScriptedServer

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("tls"), "IP:127.0.0.1")


@pytest.fixture
async def server(certificate: Certificate) -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer().running(certificate.context) as running:
        yield running


async def ask(server: ScriptedServer, directory: Path, **environment: str) -> Finished:
    create_or_load(directory / "key")
    return await conclave(directory, "server", "add", server.url, env=environment)


async def test_a_server_with_a_trusted_certificate_is_connected_to(
    server: ScriptedServer, certificate: Certificate, tmp_path: Path
) -> None:
    """The operator of a relay with a certificate of their own names it in SSL_CERT_FILE."""
    finished = await ask(server, tmp_path, SSL_CERT_FILE=str(certificate.path))
    assert finished == Finished(0, f"✓ added `{server.url}` as ann/laptop\n", "")


async def test_a_server_that_vouches_for_itself_is_not(server: ScriptedServer, tmp_path: Path) -> None:
    """Anybody between here and the relay can show such a certificate; nothing is sent to them."""
    finished = await ask(server, tmp_path)
    assert (finished.code, finished.out) == (1, "")
    assert finished.err.startswith(f"❌ failed to connect to `{server.url}`: ")
    assert "self-signed certificate" in finished.err
    assert server.left_early == []
    assert server.connections == []


async def test_a_certificate_is_good_for_its_own_name_only(tmp_path: Path) -> None:
    """One that is trusted for another host proves nothing here."""
    elsewhere = Certificate(tmp_path, "DNS:elsewhere.example")
    async with ScriptedServer().running(elsewhere.context) as server:
        finished = await ask(server, tmp_path, SSL_CERT_FILE=str(elsewhere.path))
    assert finished.code == 1
    assert finished.err.startswith(f"❌ failed to connect to `{server.url}`: ")
    assert "127.0.0.1" in finished.err
    assert server.connections == []


async def test_a_server_without_tls_has_an_error_of_its_own(tmp_path: Path) -> None:
    """`wss://` where `ws://` is served: a sentence, not a hang."""
    async with ScriptedServer().running() as server:
        server.url = server.url.replace("ws://", "wss://")
        finished = await ask(server, tmp_path)
    assert finished.code == 1
    assert finished.err.startswith(f"❌ failed to connect to `{server.url}`: ")
