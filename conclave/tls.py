"""TLS for the client's own connections: certificates are loaded where one is used, and not before.

aiohttp makes two TLS contexts when it is imported, and fills both with all certificates of the system. For the 144 of
a common Linux that is 1.9 MB and 30 ms of every command and every bridge (37.8 MB resident against 35.9 with all of
`conclave.link`), most of which need none. So the client imports aiohttp while there are no certificates to be found,
and brings its own context where it needs one. If aiohttp is there already, nothing changes for whoever imported it. If
not, its default contexts trust nobody in this process: whoever else wants to speak TLS with it brings a context, too.
"""

import contextlib
import os
import ssl
from collections.abc import Iterator
from functools import cache


@contextlib.contextmanager
def without_certificates() -> Iterator[None]:
    """Have OpenSSL find no certificates for as long as the block lasts. It changes the environment of the process."""
    paths = ssl.get_default_verify_paths()
    names = (paths.openssl_cafile_env, paths.openssl_capath_env)
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, os.devnull))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@cache
def client_context() -> ssl.SSLContext:
    """Return the context for `wss://`: it checks the server's certificate and name against the system's certificates.

    Those are what SSL_CERT_FILE and SSL_CERT_DIR named at the first call, or else OpenSSL's own.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])  # a WebSocket begins there
    return context
