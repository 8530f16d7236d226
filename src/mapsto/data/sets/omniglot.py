"""Omniglot: 1,623 handwritten characters of 50 alphabets, each drawn by 20 people.

Lake, Salakhutdinov and Tenenbaum, 2015, "Human-level concept learning through probabilistic program induction"; the
few-shot split is that of Vinyals et al., 2016, "Matching networks for one shot learning", or drawn from all characters as in Finn, Abbeel
and Levine, 2017, "Model-agnostic meta-learning". Read from ``omniglot-py`` in the data folder.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mapsto.kinds import Dataset, Samples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Omniglot"]


_AGAIN = "remove it, and it is downloaded again"
Folder = Literal["background", "evaluation"]
_DRAWN = {
    "random_train": slice(0, 1100),
    "random_validation": slice(1100, 1200),
    "random_trainval": slice(0, 1200),
    "random_test": slice(1200, None),
}
"""The parts of all 1,623 characters in the order of the SHA-256 of their names, which is the same on every machine."""


class Omniglot(Dataset):
    """Drawings: uint8, shape (N, 1, size, size), ink 255 on 0, 20 of each character.

    Classes are named ``alphabet/character``, with rotations ``alphabet/character/90``, with reflections
    ``alphabet/character/mirrored`` and ``alphabet/character/mirrored/90``.
    """

    split: Literal[
        "background",
        "evaluation",
        "train",
        "validation",
        "trainval",
        "test",
        "random_train",
        "random_validation",
        "random_trainval",
        "random_test",
    ] = "background"
    """The authors' own (964 and 659 characters, of different alphabets), or Vinyals' (1,028, 172 and 423: nearly all of
    different alphabets). `trainval` is its first two together: the 1,200 on which papers train once their settings are
    chosen. `random_…` are 1,100, 100, their 1,200 and 423 characters whatever their alphabet, an easier split, on which the
    papers of MAML and its family and of relation networks report; theirs were drawn anew, ours are the same everywhere."""
    size: int = Field(default=28, ge=8, le=105)
    """Height and width in pixels, reduced from 105."""
    rotations: bool = False
    """Count each character turned by 90, 180 and 270 degrees as a class of its own (Santoro et al., 2016)."""
    reflections: bool = False
    """Count each character's mirror image as a class of its own, turned too with `rotations`: for training only."""

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of, folder_digest

        return fingerprint_of(self, [folder_digest(self._files())])

    def open(self) -> Samples:
        import numpy as np

        from mapsto.data.glyphs.ink import ink_preprocessing

        drawings, names = self._characters()
        if self.reflections:
            drawings = np.concatenate([drawings, drawings[..., ::-1]])
            names = [*names, *(f"{name}/mirrored" for name in names)]
        if self.rotations:
            turned = [np.rot90(drawings, turns, axes=(-2, -1)) for turns in range(4)]
            drawings = np.concatenate(turned)
            names = [name if turn == 0 else f"{name}/{90 * turn}" for turn in range(4) for name in names]
        return Samples(
            inputs=drawings.reshape(-1, 1, self.size, self.size),
            labels=np.repeat(np.arange(len(names)), drawings.shape[1]),
            classes=tuple(names),
            preprocessing=ink_preprocessing(self.size),
        )

    def _characters(self) -> tuple[NDArray[np.uint8], list[str]]:
        """Drawings (characters, 20, size, size) and the characters' names, in the order of the names."""
        import numpy as np

        from mapsto.data.io.sources import omniglot_zip

        drawings: list[NDArray[np.uint8]] = []
        names: list[str] = []
        for folder, characters in self._wanted().items():
            known, images = _drawings(omniglot_zip(folder), self.size)
            chosen = [i for i, name in enumerate(known) if characters is None or name in characters]
            drawings.append(images[chosen])
            names += [known[i] for i in chosen]
        if (part := _DRAWN.get(self.split)) is None:
            return np.concatenate(drawings), names
        kept = sorted(sorted(range(len(names)), key=lambda i: sha256(names[i].encode()).digest())[part])
        return np.concatenate(drawings)[kept], [names[i] for i in kept]

    def _wanted(self) -> dict[Folder, set[str] | None]:
        """For each zip file the characters to take from it, or None for all."""
        if self.split in ("background", "evaluation"):
            return {self.split: None}
        if self.split in _DRAWN:
            return {"background": None, "evaluation": None}
        wanted: dict[Folder, set[str] | None] = {}
        for path in self._lists():
            for folder, characters in _listed(path).items():
                wanted[folder] = (wanted.get(folder) or set()) | characters
        return wanted

    def _lists(self) -> list[Path]:
        """The lists of characters of a part of Vinyals' split."""
        from mapsto.data.io.sources import omniglot_list

        match self.split:
            case "trainval":
                return [omniglot_list("train"), omniglot_list("validation")]
            case "train" | "validation" | "test" as part:
                return [omniglot_list(part)]
            case _:
                return []

    def _files(self) -> list[Path]:
        from mapsto.data.io.sources import omniglot_zip

        if self.split in ("background", "evaluation"):
            return [omniglot_zip(self.split)]
        return [omniglot_zip("background"), omniglot_zip("evaluation"), *self._lists()]


def _listed(path: Path) -> dict[Folder, set[str]]:
    """The characters that a list names, by the zip file that holds them."""
    from mapsto.errors import DataError

    try:
        listed: dict[Folder, dict[str, list[str]]] = json.loads(path.read_text(encoding="utf-8"))
        return {
            folder: {f"{alphabet}/{name}" for alphabet, names in alphabets.items() for name in names}
            for folder, alphabets in listed.items()
            if alphabets
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"not a list of characters: {error}", where=str(path), hint=_AGAIN) from error


def _drawings(path: Path, size: int) -> tuple[list[str], NDArray[np.uint8]]:
    """The characters' names in a zip file, and their drawings (characters, 20, size, size)."""
    import zipfile
    import zlib

    from mapsto.data.io.cache import cached_array
    from mapsto.data.io.fingerprint import file_digest
    from mapsto.errors import DataError

    try:
        with zipfile.ZipFile(path) as archive:
            entries = sorted(name for name in archive.namelist() if name.endswith(".png"))
            names = list(dict.fromkeys("/".join(entry.split("/")[-3:-1]) for entry in entries))
            if not names or len(entries) != 20 * len(names):
                raise DataError(
                    f"it holds {len(entries)} drawings of {len(names)} characters", where=str(path), hint=_AGAIN
                )
            images = cached_array("omniglot", f"{file_digest(path)}-{size}", lambda: _decoded(archive, entries, size))
    except (zipfile.BadZipFile, zlib.error, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"the file is damaged: {error}", where=str(path), hint=_AGAIN) from error
    return names, images.reshape(len(names), 20, size, size)


def _decoded(archive: object, entries: list[str], size: int) -> NDArray[np.uint8]:
    """Dark ink on white as light ink on black, shape (N, size, size)."""
    import io
    import zipfile
    from typing import cast

    import numpy as np
    from PIL import Image

    images = np.empty((len(entries), size, size), np.uint8)
    for image, entry in zip(images, entries, strict=True):
        drawing = Image.open(io.BytesIO(cast("zipfile.ZipFile", archive).read(entry))).convert("L")
        image[:] = 255 - np.asarray(drawing.resize((size, size), Image.Resampling.BILINEAR))
    return images
