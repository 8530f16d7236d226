"""A folder of images: one folder for each class, any images in it, in folders inside too.

Each image becomes pixels as ``mapsto_runtime.preprocessing.image_files`` says, by the same code as in a package. What a network
reads is read at the network's own size, channels and ink, so that a report measures what its package will see.
"""

from __future__ import annotations

import dataclasses
import math
import os
from typing import TYPE_CHECKING, Annotated, Final, Literal, NoReturn, cast

from pydantic import Field

from mapsto.data.io.image_folder import Split
from mapsto.errors import SpecError
from mapsto.kinds import Dataset, Preprocessing, Samples
from mapsto_runtime.shown import few

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from mapsto.data.io.image_folder import Listing
    from mapsto.data.io.image_shards import Reading

__all__ = ["Images"]

_USUAL: Final = Preprocessing(channels=3, size=(32, 32))
"""Where neither the spec nor a network says how to read."""
_IN_ONE_FILE: Final = 1 << 30
"""Bytes of decoded images up to which they are kept as one array."""
_Side = Annotated[int, Field(ge=1, le=4096)]


class Images(Dataset):
    """Images: uint8, shape (N, channels, height, width), in the order of the classes' and files' names.

    Hidden files, notes and annotations, and what operating systems leave behind are passed over and counted; any other file that is no
    whole image is an error, or with `skip_broken` a warning.
    """

    version = 2

    folder: str
    """``folder/class/**``, or with `split` ``folder/split/class/**``: a path, or a path inside the data folder."""
    size: _Side | tuple[_Side, _Side] | None = None
    """Height and width in pixels, or both of one number; by default those of the network that reads, without one 32."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for colour; by default those of the network that reads, without one 3."""
    ink: Literal["as_is", "light"] | None = None
    """``light`` inverts an image with a bright border and normalises as for glyphs: for characters on paper. By default as the network
    that reads has it, without one ``as_is``."""
    skip_broken: bool = False
    """Leave out files that are no whole images, and warn of them."""
    split: Split | None = None
    """Which part of a folder that is laid out as ``photos/{train,test}/class/*``; ``val`` and ``valid`` are ``validation``."""
    fit: Literal["stretch", "crop"] | None = None
    """How a photo comes to the network's proportions: stretched, or with ``crop`` as ImageNet's networks are evaluated: scaled until it
    just covers 8/7 of the size, of which the network takes the middle. Samples are then 8/7 of the size, so that `augment.crop` with a
    padding up to 1/14 of it moves over real pixels. By default as the network that reads has it, without one ``stretch``."""
    kept: Literal["auto", "array", "shards"] = "auto"
    """Where decoded images are kept: one array that is made in memory, or shards of 256 images, of which each batch reads its rows, for
    folders of any size. ``auto``: shards where all images decoded are more than 1 GiB. It decides no result, and is in no key."""
    labels: str | None = None
    """A text file that says the class of each image where images are in no folders of classes, as in ImageNet's ``val``: a file's name and
    a class a line. A path, or one inside the folder or the data folder."""
    unlabelled: bool = False
    """Whether the folder holds images of no known class, in folders inside too: the samples have no labels, shape (N, 0)."""

    def __post_init__(self) -> None:
        if self.unlabelled and self.labels is not None:
            raise SpecError(
                "images of no known class have no labels", where="images.labels", hint="leave one of them out"
            )
        if self.unlabelled and self.split is not None:
            raise SpecError(
                "a folder of unlabelled images has no splits",
                where="images.split",
                hint="leave out split, or name the folder inside",
            )

    def fingerprint(self) -> str:
        return self._fingerprint(self._listing())

    def open(self) -> Samples:
        import numpy as np

        from mapsto.data.checks import require_some
        from mapsto.data.io.image_shards import BROKEN

        if None in (self.size, self.channels, self.ink):
            read = self.read_for(_USUAL).open()
            how = f"{_shown_size(_USUAL.size)}, in colour" if self.channels is None else _shown_size(_USUAL.size)
            said = f"{self.folder}: read at {how}, since neither the data nor a network says how (set size)"
            return dataclasses.replace(read, notes=(*read.notes, said)) if self.size is None else read
        listing = self._listing()
        paths = [path for _, path in listing.files]
        pixels, odd, how = self._pixels(listing)
        preprocessing = self._preprocessing()
        samples = Samples(
            inputs=pixels,
            labels=np.zeros((len(paths), 0), np.float32)
            if self.unlabelled
            else np.array([label for label, _ in listing.files], np.int64),
            classes=listing.classes,
            preprocessing=preprocessing,
            warnings=(*_warnings(paths, odd), *_alike(self.folder, listing.classes)),
            notes=(*listing.notes, *how),
        )
        if (odd & BROKEN).any():
            samples = samples.take(np.flatnonzero(odd & BROKEN == 0))
        return require_some(samples, where=self.folder)

    def read_for(self, preprocessing: Preprocessing) -> Images:
        if preprocessing.kind != "image":
            return self
        height, width = preprocessing.size
        return dataclasses.replace(
            self,
            size=self.size if self.size is not None else (height, width),
            channels=self.channels or (3 if preprocessing.channels == 3 else 1),
            ink=self.ink or preprocessing.ink,
            fit=self.fit or ("crop" if preprocessing.fit == "crop" else None),
        )

    def misread(self, preprocessing: Preprocessing) -> tuple[str, ...]:
        if preprocessing.kind != "image":
            return ()
        own, found = self._preprocessing(), list[str]()
        if self.size is not None and own.size != preprocessing.size:
            found.append(f"size: {_shown_size(own.size)}, the network's is {_shown_size(preprocessing.size)}")
        if self.channels is not None and own.channels != preprocessing.channels:
            found.append(f"channels: {own.channels}, the network's is {preprocessing.channels}")
        if self.ink is not None and own.ink != preprocessing.ink:
            found.append(f"ink: {own.ink}, the network's is {preprocessing.ink}")
        if self.fit is not None and own.fit != preprocessing.fit:
            found.append(f"fit: {own.fit}, the network's is {preprocessing.fit}")
        remedy = ", ".join(each.partition(":")[0] for each in found)
        text = (
            f"{self.folder}: files are read otherwise than the network's package reads them ({'; '.join(found)}), so that figures may "
            f"differ from what it answers; leave out {remedy} of the images"
        )
        return (text,) if found else ()

    def _preprocessing(self) -> Preprocessing:
        from mapsto.data.glyphs.ink import MEAN, STD

        channels, ink = self.channels or _USUAL.channels, self.ink or _USUAL.ink
        # ImageNet's mean and deviation for photographs, the glyphs' for ink.
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        if ink == "light":
            mean, std = (MEAN,) * channels, (STD,) * channels
        elif channels == 1:
            mean, std = (0.449,), (0.226,)
        size = self.size if self.size is not None else _USUAL.size
        both = (size, size) if isinstance(size, int) else size
        return Preprocessing(channels=channels, size=both, mean=mean, std=std, ink=ink, fit=self.fit or "stretch")

    def _listing(self) -> Listing:
        from mapsto.data.io.download import locate
        from mapsto.data.io.image_folder import Listing, images_in, labelled_by, listed

        folder = locate(self.folder, what="the folder of images")
        if self.labels is not None:
            inside = folder / self.labels
            file = inside if inside.is_file() else locate(self.labels, what="the file of labels")
            return labelled_by(folder, file, split=self.split)
        if not self.unlabelled:
            return listed(folder, split=self.split)
        files, notes = images_in(folder)
        return Listing(folder, (), tuple((-1, path) for path in files), notes)

    def _fingerprint(self, listing: Listing) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        digests = self._digests(listing)
        names = (listing.classes[label] if listing.classes else "" for label, _ in listing.files)
        content = [*listing.classes, *(part for pair in zip(names, digests, strict=True) for part in pair)]
        return fingerprint_of(self, content, without=("folder", "kept", "labels"))

    def _digests(self, listing: Listing) -> list[str]:
        from mapsto.data.io.fingerprint import file_digests

        return file_digests(path for _, path in listing.files)

    def _pixels(self, listing: Listing) -> tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[str, ...]]:
        """The images (N, C, H, W), what is odd about each file (N,), and a note on where they are kept."""
        import numpy as np

        from mapsto.data.io.cache import cached_array
        from mapsto.data.io.image_shards import BROKEN, decoded, shards_of, stored_images

        paths, reading = [path for _, path in listing.files], self._reading()
        size = len(paths) * math.prod(reading.shape)
        if self.kept == "array" or (self.kept == "auto" and size <= _IN_ONE_FILE):
            # The first byte of a record says what is odd about its file, so that one cached array holds all there is.
            records = cached_array("images", self._fingerprint(listing), lambda: self._decoded(paths, reading))
            return records[:, 1:].reshape(len(paths), *reading.shape), records[:, 0], ()
        rows, odd = stored_images(paths, self._digests(listing), reading)
        broken = np.flatnonzero(odd & BROKEN).tolist()
        if broken and not self.skip_broken:
            told = {i: decoded(paths[i], str(paths[i]), reading).why for i in broken[:20]}
            self._refuse_broken(paths, dict.fromkeys(broken, "") | told)
        shards = shards_of(len(paths))
        said = f"{self.folder}: {len(paths):,} images are kept in {shards:,} shard{'s' if shards > 1 else ''}, {size / 1e9:.2f} GB"
        return cast("NDArray[np.uint8]", rows), odd, (said,)

    def _reading(self) -> Reading:
        from mapsto.data.io.image_shards import Reading

        how = self._preprocessing()
        return Reading(how.scaled_size, how.channels, how.ink, how.fit)

    def _decoded(self, paths: list[Path], reading: Reading) -> NDArray[np.uint8]:
        """A record for each file: one byte of what is odd about it, then its pixels."""
        from concurrent.futures import ThreadPoolExecutor

        import numpy as np

        from mapsto.data.io.image_shards import decoded
        from mapsto_runtime.preprocessing.image_files import huge_allowed

        records = np.zeros((len(paths), 1 + math.prod(reading.shape)), np.uint8)
        broken: dict[int, str] = {}

        def decode(i: int) -> None:
            found = decoded(paths[i], str(paths[i]), reading)
            records[i, 0] = found.odd
            if found.pixels is None:
                broken[i] = found.why
            else:
                records[i, 1:] = found.pixels.ravel()

        with huge_allowed(), ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(decode, range(len(paths))))
        if broken and not self.skip_broken:
            self._refuse_broken(paths, broken)
        return records

    def _refuse_broken(self, paths: Sequence[Path], broken: dict[int, str]) -> NoReturn:
        from mapsto.errors import DataError

        named = few([f"{paths[i]} ({broken[i]})" for i in sorted(broken)])
        count = "1 file is" if len(broken) == 1 else f"{len(broken)} files are"
        raise DataError(
            f"{count} not whole images: {named}",
            where=self.folder,
            hint="remove what is broken, or set skip_broken: true",
        )


def _warnings(paths: Sequence[Path], odd: NDArray[np.uint8]) -> list[str]:
    """What is odd about files, by the first bytes of their records."""
    import numpy as np

    from mapsto.data.io.image_shards import BROKEN, CONSTANT, STRETCHED

    said = {
        BROKEN: ("broken images left out", ""),
        CONSTANT: ("images in which every pixel has the same value", "; look at them, they teach nothing"),
        STRETCHED: (
            "images whose values fit no known range",
            "; each was stretched from its own range to that of 8 bits: save them as 8 or 16 bits to keep one scale",
        ),
    }
    found: list[str] = []
    for bit, (what, advice) in said.items():
        places = np.flatnonzero(odd & bit).tolist()
        if places:
            found.append(f"{what}: {len(places)} ({few([str(paths[i]) for i in places])}){advice}")
    return found


def _alike(folder: str, classes: Sequence[str]) -> list[str]:
    """A warning for each group of folders whose names hardly differ."""
    from mapsto.data.checks import names_alike

    return [
        f"{folder}: the folders {names} count as different classes, though their names differ only in case or spaces; "
        "put the images in one folder if they are one class"
        for names in names_alike(classes)
    ]


def _shown_size(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]} pixels"
