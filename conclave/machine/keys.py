"""The machine's Ed25519 key: one small file, created once and for good.

The file holds the 32-byte seed as unpadded base64url: 43 characters, no newline, readable by its owner only. Anyone
who can read it can log in as the machine, on every server where the machine is enrolled.
"""

import os
import secrets
from pathlib import Path
from typing import Self

from nacl.signing import SigningKey

from conclave import base64url, public_key
from conclave.errors import InvalidKey, KeyFileError


class MachineKey:
    """The key that this machine signs logins with."""

    def __init__(self, seed: bytes) -> None:
        """Take a 32-byte seed.

        Raises:
            InvalidKey: for any other length.
        """
        self._signer = SigningKey(public_key.check_length(seed, "seed"))

    @classmethod
    def generate(cls) -> Self:
        """Generate a key from the system's randomness."""
        return cls(secrets.token_bytes(public_key.KEY_BYTES))

    @property
    def public_key(self) -> bytes:
        return bytes(self._signer.verify_key)

    @property
    def public_text(self) -> str:
        """The public key as it is shown and stored everywhere: unpadded base64url, 43 characters."""
        return base64url.encode(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature over exactly `message`."""
        return self._signer.sign(message).signature

    def seed_text(self) -> str:
        """The content of the key file. It is the secret itself: write it nowhere else."""
        return base64url.encode(bytes(self._signer))


def load(path: Path) -> MachineKey:
    """Read the key file.

    Raises:
        KeyFileError: if it is missing, unreadable or holds no key. The text never quotes the content.
    """
    try:
        text = path.read_bytes().decode("ascii", "replace")
    except FileNotFoundError as error:
        raise KeyFileError(f"failed to read keyfile `{path}` (run `conclave key` first): {error.strerror}") from error
    except OSError as error:
        raise KeyFileError(f"failed to read keyfile `{path}`: {error.strerror}") from error
    seed = _seed(path, text.strip())
    return MachineKey(seed)


def create_or_load(path: Path) -> MachineKey:
    """Read the key file, or create it with a new key if there is none.

    Concurrent commands all get the same key; a crash leaves a complete file or none.

    Raises:
        KeyFileError: if the file cannot be read or written.
    """
    if not path.exists():
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _create(path, MachineKey.generate().seed_text().encode())
        except OSError as error:
            raise KeyFileError(f"failed to write keyfile `{path}`: {error.strerror}") from error
    return load(path)


def _create(path: Path, content: bytes) -> None:
    """Put a complete file in place unless there is one: a link, unlike a rename, fails if the name exists."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        _sync_directory(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    """Make a new directory entry durable: a key that a server has enrolled must not be lost in a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _seed(path: Path, text: str) -> bytes:
    try:
        seed = public_key.decode(text)
    except InvalidKey as error:
        raise KeyFileError(f"{error} (in keyfile `{path}`)") from error
    if len(seed) != public_key.KEY_BYTES:
        raise KeyFileError(f"keyfile does not contain a 32-byte seed: `{path}` holds {len(seed)} bytes")
    return seed
