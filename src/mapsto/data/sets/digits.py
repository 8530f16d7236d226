"""Handwritten digits: the 1,797 images of 8 × 8 pixels that come with scikit-learn, enlarged to the size of glyphs.

The test set of Alpaydin and Kaynak, 1998, "Optical recognition of handwritten digits" (UCI).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mapsto.kinds import Dataset, Samples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Digits"]

_TEST_SHARE = 0.25
_SPLIT_SEED = 0


class Digits(Dataset):
    """Handwritten digits: uint8, shape (N, 1, size, size), ink 255 on 0.

    >>> digits = Digits().open()
    >>> digits.inputs.shape, digits.classes[:3]
    ((1797, 1, 28, 28), ('0', '1', '2'))
    """

    split: Literal["all", "train", "test"] = "all"
    """All 1,797, or a fixed stratified three quarters of them and the other quarter."""
    size: int = Field(default=28, ge=8, le=512)
    """Height and width in pixels; the digit is as large in it as a glyph."""

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import file_digest, fingerprint_of

        return fingerprint_of(self, [file_digest(_file())])

    def open(self) -> Samples:
        import numpy as np

        from mapsto.data.glyphs.ink import ink_preprocessing
        from mapsto.data.stratify import share_of_each_class

        table = np.loadtxt(_file(), delimiter=",", dtype=np.uint8)
        labels = table[:, 64].astype(np.int64)
        samples = Samples(
            inputs=_enlarged(table[:, :64].reshape(-1, 8, 8), self.size),
            labels=labels,
            classes=tuple("0123456789"),
            preprocessing=ink_preprocessing(self.size),
        )
        if self.split == "all":
            return samples
        held_out = share_of_each_class(labels, round(_TEST_SHARE * len(labels)), _SPLIT_SEED)
        return samples.take(np.flatnonzero(held_out == (self.split == "test")))


def _file() -> Path:
    """The data file in the wheel, found without importing scikit-learn, which takes a second."""
    from importlib.util import find_spec

    from mapsto.errors import DataError

    spec = find_spec("sklearn")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    raise DataError(
        "scikit-learn's digits.csv.gz is missing", where="digits", hint="reinstall scikit-learn from its wheel"
    )


def _enlarged(drawings: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Levels 0 to 16 of 8 × 8 cells as smooth images, centred with a margin."""
    import numpy as np
    from PIL import Image

    from mapsto.data.glyphs.ink import EXTENT

    # The grid lies in a larger blank one, of which the part that makes the image is enlarged: no stroke is cut off.
    grids = np.zeros((len(drawings), 24, 24), np.uint8)
    grids[:, 8:16, 8:16] = (drawings.astype(np.float32) * (255 / 16)).round()
    half = 4 / EXTENT
    box = (12 - half, 12 - half, 12 + half, 12 + half)
    images = np.empty((len(drawings), 1, size, size), np.uint8)
    for image, grid in zip(images, grids, strict=True):
        image[0] = np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC, box=box))
    return images
