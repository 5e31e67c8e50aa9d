"""Ed25519 keys as text: unpadded base64url with that exact alphabet."""

from conclave import base64url
from conclave.errors import InvalidKey

KEY_BYTES = 32
"""The length of a seed and of a public key."""


def parse_public_key(text: str) -> bytes:
    """Read a public key; space around it is allowed.

    Raises:
        InvalidKey: with the broken rule in words.
    """
    return check_length(decode(text.strip()), "public key")


def decode(text: str) -> bytes:
    """Read the bytes of a key, of any length. Raises: InvalidKey."""
    try:
        return base64url.decode(text)
    except ValueError as error:
        raise InvalidKey(f"malformed key or signature: {error}") from None


def check_length(key: bytes, what: str) -> bytes:
    """Return `key` unchanged if it has `KEY_BYTES`. Raises: InvalidKey, which calls it `what`."""
    if len(key) != KEY_BYTES:
        raise InvalidKey(f"malformed key or signature: {what} must be {KEY_BYTES} bytes")
    return key
