"""A folder of images: one folder for each class, any images in it.

Each image is turned upright, laid on white where it is transparent, and resized to a square.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mapsto.kinds import Dataset, Preprocessing, Samples

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Images"]


class Images(Dataset):
    """Images: uint8, shape (N, channels, size, size), in the order of the classes' and files' names.

    Hidden files are passed over; any other file that is no whole image is an error, or a warning.
    """

    folder: str
    """``folder/class/*``: a path, or a path inside the data folder."""
    size: int = Field(default=32, ge=8, le=1024)
    """Height and width in pixels."""
    channels: Literal[1, 3] = 3
    """1 for grey, 3 for colour."""
    ink: Literal["as_is", "light"] = "as_is"
    """``light`` inverts an image with a bright border and normalises as for glyphs: for characters on paper."""
    skip_broken: bool = False
    """Leave out files that are no whole images, and warn of them."""

    def fingerprint(self) -> str:
        from mapsto.data.fingerprint import file_digests, fingerprint_of

        classes, files = self._files()
        labelled = zip((classes[label] for label, _ in files), file_digests(path for _, path in files), strict=True)
        return fingerprint_of(self, [*classes, *(part for pair in labelled for part in pair)], without=("folder",))

    def open(self) -> Samples:
        import numpy as np

        from mapsto.data.cache import cached_array
        from mapsto.data.checks import require_some

        classes, files = self._files()
        paths = [path for _, path in files]
        # The first byte of a record says whether its file is broken, so that one cached array holds all there is.
        records = cached_array("images", self.fingerprint(), lambda: self._decoded(paths))
        samples = Samples(
            inputs=records[:, 1:].reshape(len(files), self.channels, self.size, self.size),
            labels=np.array([label for label, _ in files], np.int64),
            classes=classes,
            preprocessing=self._preprocessing(),
        )
        broken = np.flatnonzero(records[:, 0])
        if len(broken):
            names = ", ".join(str(paths[i]) for i in broken[:5])
            more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
            logging.getLogger("mapsto").warning("broken images left out: %d (%s%s)", len(broken), names, more)
            samples = samples.take(np.flatnonzero(records[:, 0] == 0))
        return require_some(samples, where=self.folder)

    def _preprocessing(self) -> Preprocessing:
        from mapsto.data.ink import MEAN, STD

        # ImageNet's mean and deviation for photographs, the glyphs' for ink.
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        if self.ink == "light":
            mean, std = (MEAN,) * self.channels, (STD,) * self.channels
        elif self.channels == 1:
            mean, std = (0.449,), (0.226,)
        return Preprocessing(channels=self.channels, size=(self.size, self.size), mean=mean, std=std, ink=self.ink)

    def _files(self) -> tuple[tuple[str, ...], list[tuple[int, Path]]]:
        """The classes' names, and each file with its label."""
        from mapsto.data.folder import locate
        from mapsto.errors import DataError

        root = locate(self.folder, what="the folder of images")
        folders = (
            sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")) if root.is_dir() else []
        )
        files = [
            (label, path)
            for label, folder in enumerate(folders)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        ]
        if not files:
            raise DataError(
                "holds no folder with images in it", where=str(root), hint="put each class in a folder of its own"
            )
        return tuple(folder.name for folder in folders), files

    def _decoded(self, paths: list[Path]) -> NDArray[np.uint8]:
        """A record for each file: one byte, 1 where it is broken, then its pixels."""
        from concurrent.futures import ThreadPoolExecutor

        import numpy as np
        from PIL import Image

        from mapsto.errors import DataError

        records = np.zeros((len(paths), 1 + self.channels * self.size**2), np.uint8)
        broken: dict[int, str] = {}

        def decode(i: int) -> None:
            try:
                records[i, 1:] = _read(paths[i], self.size, self.channels, self.ink).ravel()
            except (OSError, ValueError, SyntaxError, ArithmeticError, Image.DecompressionBombError) as error:
                records[i, 0], broken[i] = 1, str(error)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(decode, range(len(paths))))
        if broken and not self.skip_broken:
            named = ", ".join(f"{paths[i]} ({broken[i]})" for i in sorted(broken)[:5])
            more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
            count = "1 file is" if len(broken) == 1 else f"{len(broken)} files are"
            raise DataError(
                f"{count} not whole images: {named}{more}",
                where=self.folder,
                hint="remove what is broken, or set skip_broken: true",
            )
        return records


def _read(path: Path, size: int, channels: int, ink: str) -> NDArray[np.uint8]:
    """One image, shape (channels, size, size)."""
    import numpy as np
    from PIL import Image, ImageOps

    from mapsto.data.ink import lightened

    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        image = image.convert("L" if channels == 1 else "RGB").resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image).reshape(size, size, channels).transpose(2, 0, 1)
    return lightened(pixels) if ink == "light" else pixels
