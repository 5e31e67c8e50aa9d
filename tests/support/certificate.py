"""A certificate for servers of tests; it needs the openssl command."""

import shutil
import ssl
import subprocess
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
