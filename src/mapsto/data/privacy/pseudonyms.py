"""Keyed pseudonyms: ``HMAC-SHA256(key, kind ‖ 0 ‖ text)``, the same for the same text under a key, and not to be guessed without it.

Whoever destroys the key makes them mean nothing: then no list of names or numbers can be tried against them (NIST SP 800-188, 4.3).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import unicodedata
from pathlib import Path

from mapsto.errors import SpecError, StoreError

__all__ = ["Pseudonyms"]

_BYTES = 32
_LETTERS = "bcdfghjklmnpqrst"
"""One for each half byte. No vowels, so that no words come of them; no digits, so that no pattern of numbers is seen in them."""


class Pseudonyms:
    """Pseudonyms under a key.

    >>> names = Pseudonyms(b"k" * 32)
    >>> names.of("EMAIL_ADDRESS", "Ann@example.org") == names.of("EMAIL_ADDRESS", "ann@EXAMPLE.org")
    True
    >>> len(names.of("EMAIL_ADDRESS", "ann@example.org"))
    24
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def of_file(cls, path: Path) -> Pseudonyms:
        """Under the key in a file, which is made where it is missing, for this user alone.

        Raises
        ------
        SpecError
            The file holds no key.
        StoreError
            It can be neither read nor made.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            if not path.exists():
                with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                    file.write(f"{secrets.token_hex(_BYTES)}\n")
                    file.flush()
                    os.fsync(file.fileno())
                try:
                    os.link(fresh, path)  # whole or not at all, and never over one that came meanwhile
                except FileExistsError:
                    pass
                finally:
                    fresh.unlink()
            text = path.read_text(encoding="ascii").strip()
        except UnicodeDecodeError:
            text = ""
        except OSError as error:
            raise StoreError(
                f"the key of pseudonyms can be neither read nor made ({error.strerror})",
                where=str(path),
                hint="look at the folder's owner and its disk, or give another `key`",
            ) from error
        if not re.fullmatch(rf"[0-9a-f]{{{2 * _BYTES},}}", text):
            raise SpecError(
                "holds no key of pseudonyms",
                where=str(path),
                hint=f"a key is {2 * _BYTES} or more hexadecimal digits; give the file that was used before, or another name",
            )
        return cls(bytes.fromhex(text[: len(text) // 2 * 2]))

    def of(self, kind: str, text: str) -> str:
        """24 letters for a text; how it is written, in capitals, wide letters or with blanks, makes no difference."""
        digest = hmac.new(
            self._key, f"{kind}\0{_plain(text)}".encode("utf-8", "surrogatepass"), hashlib.sha256
        ).digest()
        return "".join(_LETTERS[byte >> 4] + _LETTERS[byte & 15] for byte in digest[:12])


def _plain(text: str) -> str:
    plain = "".join(letter for letter in unicodedata.normalize("NFKC", text) if unicodedata.category(letter) != "Cf")
    plain = re.sub(r"\s+", "", plain.casefold())
    return plain if re.search(r"[^\W\d_]", plain) else re.sub(r"[-()./+]", "", plain)
