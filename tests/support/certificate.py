"""A certificate for servers of tests; it needs the openssl command."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


class Certificate:
    """A certificate that signs itself, for one name or address."""

    def __init__(self, folder: Path, subject: str) -> None:
        self.path, self.key = folder / "certificate.pem", folder / "key.pem"
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2")
        names = ("-subj", "/CN=relay", "-addext", f"subjectAltName={subject}")
        files = ("-keyout", str(self.key), "-out", str(self.path))
        subprocess.run(["openssl", "req", "-x509", *curve, *names, *files], check=True, capture_output=True)  # noqa: S607
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.path, self.key)


@asynccontextmanager
async def behind_tls(url: str, certificate: Certificate) -> AsyncIterator[str]:
    """Serve a server on a Unix socket with TLS; yields its URL with the certificate as an option."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(url.removeprefix("unix://"))
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=certificate.context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate.path}"
