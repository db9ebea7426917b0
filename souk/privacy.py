"""Pseudonyms and sealed contact data; the keys never enter the database."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from souk.errors import SoukError
from souk.settings import Settings

KEY_VERSION = 1


class Keys:
    """The two keys of an installation, from the settings or from files under `home/secrets`.

    Raises:
        SoukError: A key in the settings is not 64 hex digits.
    """

    def __init__(self, settings: Settings) -> None:
        folder = settings.home / "secrets"
        self._pseudonym = _key("SOUK_PSEUDONYM_KEY", settings.pseudonym_key, folder / "pseudonym.key")
        self._vault = AESGCM(_key("SOUK_VAULT_KEY", settings.vault_key, folder / "vault.key"))

    @property
    def pseudonym_hex(self) -> str:
        """Return the pseudonym key for a session's `souk.pseudonym_key`."""
        return self._pseudonym.hex()

    def user_key(self, user_id: str) -> str:
        """Return the pseudonym of a user id: HMAC-SHA-256, 128 bits, with the key's version in front."""
        digest = hmac.new(self._pseudonym, user_id.encode(), hashlib.sha256).hexdigest()
        return f"u{KEY_VERSION}_{digest[:32]}"

    def seal(self, user_key: str, contact: object) -> bytes:
        """Encrypt contact data with AES-256-GCM, bound to its pseudonym; the first 12 bytes are the nonce."""
        nonce = os.urandom(12)
        text = json.dumps(contact, ensure_ascii=False, default=str).encode("utf-8", "replace")
        return nonce + self._vault.encrypt(nonce, text, user_key.encode())

    def unseal(self, user_key: str, sealed: bytes) -> object:
        """Decrypt what `seal` made for this pseudonym."""
        return json.loads(self._vault.decrypt(sealed[:12], sealed[12:], user_key.encode()))


def _key(name: str, given: str | None, file: Path) -> bytes:
    if given is None:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "w") as opened:
                opened.write(secrets.token_hex(32))
        given = file.read_text().strip()
    try:
        key = bytes.fromhex(given)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise SoukError(f"{name} is not 64 hex digits", "Make one with: openssl rand -hex 32.")
    return key
