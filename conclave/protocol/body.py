"""The body of a message: a text, or what only its recipients can open."""

import msgspec


class SealedBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Relayed and kept as it is, never interpreted. `ciphertext` is base64url without padding."""

    ciphertext: str
    key_id: str | None = None


class Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """Exactly one of the two; a text may be empty."""

    text: str | None = None
    sealed: SealedBody | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless there is exactly one of the two; decoding turns that into its own error."""
        if (self.text is None) == (self.sealed is None):
            raise ValueError("a body has either `text` or `sealed`")
