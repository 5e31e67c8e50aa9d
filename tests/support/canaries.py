"""Secrets that are searched for afterwards in all that came out."""

import base64
import itertools
import secrets

from nacl.signing import SigningKey

from conclave.model import Plain, Sealed


class Canaries:
    """Secrets that are unique, so that they can be searched for."""

    def __init__(self) -> None:
        self._secrets: dict[str, bytes] = {}
        self._numbers = itertools.count()

    def text(self, what: str) -> str:
        canary = f"canary-{what}-{next(self._numbers)}-{secrets.token_hex(8)}"
        self._secrets[canary] = canary.encode()
        return canary

    def body(self) -> Plain:
        return Plain(self.text("body"))

    def sealed(self) -> Sealed:
        return Sealed(self.text("sealed").encode(), self.text("key-id"))

    def sealed_object(self) -> dict[str, dict[str, str]]:
        """Make a sealed body in the form of protocol v2."""
        ciphertext = base64.urlsafe_b64encode(self.text("sealed").encode()).decode().rstrip("=")
        return {"sealed": {"ciphertext": ciphertext, "key_id": self.text("key-id")}}

    def token(self, token: str) -> str:
        """Note a token that the relay made up."""
        self._secrets[token] = token.encode()
        return token

    def key(self) -> SigningKey:
        """Make a key; neither of its halves may be seen."""
        key = SigningKey.generate()
        self._secrets[f"private key {bytes(key).hex()}"] = bytes(key)
        self._secrets[f"public key {bytes(key.verify_key).hex()}"] = bytes(key.verify_key)
        return key

    def found_in(self, output: bytes) -> list[str]:
        """Return which secrets are in an output, in whatever usual form."""
        return [name for name, secret in self._secrets.items() if any(form in output for form in _forms(secret))]


def _forms(secret: bytes) -> set[bytes]:
    encoded = (base64.b64encode(secret), base64.urlsafe_b64encode(secret))
    forms = {secret, secret.hex().encode(), repr(secret)[2:-1].encode(), repr(list(secret))[1:-1].encode()}
    return forms | {form.rstrip(b"=") for form in encoded} | {form.rstrip(b"=")[:-2] for form in encoded}
