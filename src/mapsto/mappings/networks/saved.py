"""A network that mapsto saved in a folder: the ``learner/`` of a package, or what ``mapsto adapt`` keeps of the network it was given.

``θ ← folder``: the factory's network, its edits and its tensors, which are safetensors; nothing is unpickled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import Mapping

__all__ = ["Saved"]


class Saved(Mapping[None, Network]):
    """The network in a folder; it enters keys by the content of the folder's files, not by its path."""

    folder: str
    """Holds ``network.json`` and the files that it names: a path, or a path inside the data folder."""

    contract: ClassVar[dict[str, Any]] = {"folder": "network"}
    exempt: ClassVar[dict[str, str]] = dict.fromkeys(
        ("input unchanged and deterministic", "output kind as declared", "saved loaded and run again agree"),
        "it needs a folder that was saved; its own tests write one",
    )

    def fingerprint(self) -> str:
        """A digest of the content of the folder's files. Raises `DataError` where there is no such folder."""
        import hashlib

        from mapsto.data.io.fingerprint import file_digest

        digest = hashlib.sha256()
        for path in sorted(self._folder().iterdir()):
            if path.is_file():
                digest.update(f"{path.name} {file_digest(path)}\n".encode())
        return digest.hexdigest()

    def apply(self, value: None, ctx: Context) -> Network:
        """Raises `DataError` where there is no such folder, `StoreError` where a file of it is damaged, `TrustError` for a factory that is
        not trusted.
        """
        from mapsto.nn.network.serialization import load

        return load(self._folder())

    def _folder(self) -> Path:
        from mapsto.data.io.download import locate
        from mapsto.errors import DataError

        place = locate(self.folder, what="the saved network")
        if not (place / "network.json").is_file():
            raise DataError(
                "no saved network is here: there is no network.json",
                where=str(place),
                hint="give the folder learner/ of a package",
            )
        return place
