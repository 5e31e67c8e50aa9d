"""Bytes as text: base64url without padding (RFC 4648, section 5), each value in exactly one spelling."""

import base64
import binascii
import re

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*\Z")


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Read bytes.

    Raises:
        ValueError: for another alphabet, padding, a truncated text, or a second spelling of the same bytes.
    """
    if not _ALPHABET.match(text):
        raise ValueError("expected base64url (A-Z, a-z, 0-9, `-`, `_`) without padding")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise ValueError("truncated base64url") from None
    if encode(data) != text:
        raise ValueError("the last character carries extra bits")
    return data
