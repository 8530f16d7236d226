"""What lies in a folder of photos: classes, images, and what is passed over.

A folder of a user's disk holds more than images: previews, notes, annotations and what operating systems and notebooks leave
behind. None of it becomes a class or a sample, and all of it is counted.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from mapsto.errors import DataError

__all__ = ["Listing", "Split", "images_in", "labelled_by", "listed", "splits_in"]

Split: TypeAlias = Literal["train", "validation", "test"]

_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_JUNK_FOLDERS = {"__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information"}
_JUNK_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
_SIDECARS = {
    *(
        ".txt",
        ".json",
        ".jsonl",
        ".xml",
        ".csv",
        ".tsv",
        ".yaml",
        ".yml",
        ".toml",
        ".ini",
        ".cfg",
        ".log",
        ".md",
        ".rst",
    ),
    *(
        ".html",
        ".htm",
        ".pdf",
        ".doc",
        ".docx",
        ".xls",
        ".xlsx",
        ".parquet",
        ".npy",
        ".npz",
        ".pkl",
        ".mat",
        ".db",
        ".lnk",
    ),
    *(".url", ".py", ".ipynb", ".sh", ".zip", ".tar", ".gz", ".7z", ".rar", ".xmp", ".aae", ".thm", ".md5", ".sha256"),
    *(".mp4", ".mov", ".avi", ".mp3", ".wav"),
}
_IMAGES = {
    *(
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".bmp",
        ".dib",
        ".gif",
        ".tif",
        ".tiff",
        ".webp",
        ".ppm",
        ".pgm",
        ".pbm",
    ),
    *(".pnm", ".jp2", ".j2k", ".tga", ".ico", ".avif", ".pcx", ".sgi", ".dds"),
}


@dataclass(frozen=True)
class Listing:
    """The images of a folder, in the order of the classes' and files' names."""

    root: Path
    classes: tuple[str, ...]
    files: tuple[tuple[int, Path], ...]
    """(number of the class, path)."""
    notes: tuple[str, ...]
    """What was passed over, and classes without an image: one sentence each."""


def splits_in(root: Path) -> dict[Split, Path]:
    """The folders ``train``, ``validation`` and ``test`` of a folder that is laid out as ``photos/{train,test}/class/*``.

    ``val``, ``valid``, ``training`` and ``testing`` are known too, in any case of letters. A folder is laid out so where all its
    folders have such names and one at least holds folders, not images (ImageNet's ``val`` and ``test`` hold images alone); otherwise, as
    where it is no folder, the result is empty.

    Raises `DataError` where two folders stand for one split.
    """
    if not root.is_dir():
        return {}
    folders = [folder for folder in _entries(root) if folder.is_dir() and not _is_junk_folder(folder.name)]
    names: list[Split | None] = [_SPLITS.get(folder.name.lower()) for folder in folders]
    if not folders or None in names or not any(_holds_folders_only(folder) for folder in folders):
        return {}
    found: dict[Split, Path] = {}
    for name, folder in zip(names, folders, strict=True):
        if name is None:
            continue
        if name in found:
            raise DataError(
                f"'{found[name].name}' and '{folder.name}' both stand for the split {name}",
                where=str(root),
                hint="keep one of them",
            )
        found[name] = folder
    return found


def listed(root: Path, *, split: Split | None = None) -> Listing:
    """The classes and images of a folder: each folder in it is a class, with whatever folders are inside.

    Parameters
    ----------
    root
        ``root/class/**``, or with `split` ``root/split/class/**``; the classes are then those of all splits, so that each has the same
        number in every split.

    Raises
    ------
    DataError
        It holds no image, or no such split; or it is laid out as splits and none is named.
    """
    splits = splits_in(root)
    if split is None and splits:
        raise DataError(
            f"holds the splits {', '.join(splits)}, not classes",
            where=str(root),
            hint=f"say which one is meant, as in split: {next(iter(splits))}",
        )
    if split is not None and split not in splits:
        known = f"the splits {', '.join(splits)}" if splits else "no splits"
        raise DataError(
            f"there is no split '{split}': it holds {known}",
            where=str(root),
            hint="lay it out as photos/train/class/*, photos/test/class/*, or leave split out",
        )
    place = root if split is None else splits[split]
    passed = _PassedOver()
    folders = _class_folders(place, passed)
    names = {folder.name for folder in folders}
    for other in splits.values():
        names |= {folder.name for folder in _class_folders(other, _PassedOver())}
    classes = tuple(sorted(names))
    numbers = {name: number for number, name in enumerate(classes)}
    files = [
        (numbers[folder.name], path)
        for folder in sorted(folders, key=lambda folder: folder.name)
        for path in sorted(_images(folder, passed, (_identity(place), _identity(folder))))
    ]
    if not files:
        raise DataError(
            "holds no folder with images in it",
            where=str(place),
            hint="put each class in a folder of its own, or name a file that says the class of each image, as in labels: val.txt",
        )
    empty = [classes[number] for number in sorted(set(range(len(classes))) - {number for number, _ in files})]
    return Listing(place, classes, tuple(files), (*passed.notes(place), *_empty_note(empty, place)))


def labelled_by(root: Path, file: Path, *, split: Split | None = None) -> Listing:
    """The images of a folder without folders of classes, and their classes from a file: a name and a class a line.

    Parameters
    ----------
    root
        ``root/**``, or with `split` ``root/split/**``.
    file
        Lines such as ``ILSVRC2012_val_00000001.JPEG n01751748`` or ``ILSVRC2012_val_00000001,n01751748 9 21 438 300``: parted by commas or
        spaces, what follows is passed over, as is a first line of headings. Beside other splits, whose folders are the classes then, a
        whole number stands for the class of that place.

    Raises
    ------
    DataError
        It is no such file, names no image of the folder, or a class that the other splits do not have.
    """
    splits = splits_in(root)
    place = root if split is None else next((f for f in _entries(root) if _SPLITS.get(f.name.lower()) == split), root)
    paths, notes = images_in(place)
    named = {path.stem: path for path in paths} | {path.name: path for path in paths}
    known = sorted({folder.name for other in splits.values() for folder in _class_folders(other, _PassedOver())})
    label_of: dict[Path, str] = {}
    absent = 0
    for number, (name, label) in enumerate(_lines(file)):
        if name in named:
            label_of[named[name]] = known[int(label)] if label.isdecimal() and int(label) < len(known) else label
        elif number:
            absent += 1
    if not label_of:
        raise DataError(f"names no image of {place}", where=str(file), hint="give lines of a file's name and its class")
    unknown = sorted(set(label_of.values()) - set(known)) if known else []
    if unknown:
        raise DataError(
            f"names {len(unknown)} classes that no other split has: {', '.join(unknown[:5])}",
            where=str(file),
            hint="name classes as the folders of the train split are named",
        )
    classes = tuple(known or sorted(set(label_of.values())))
    numbers = {name: number for number, name in enumerate(classes)}
    files = sorted((numbers[label], path) for path, label in label_of.items())
    left = [f"{place}: {len(paths) - len(files)} images left out, of which {file.name} says no class"]
    gone = [f"{file}: {absent} images that it names are not in {place}"]
    empty = [classes[number] for number in sorted(set(range(len(classes))) - {number for number, _ in files})]
    told = (*notes, *(left if len(files) < len(paths) else []), *(gone if absent else []), *_empty_note(empty, place))
    return Listing(place, classes, tuple(files), told)


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """The name and the class of each line."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read as text ({error})", where=str(file), hint="give a text file") from error
    for number, line in enumerate(lines, 1):
        name, *rest = re.split(r"[,;\s]+", line.strip())
        if not name:
            continue
        if not rest:
            raise DataError(
                f"line {number} holds one word, {name[:40]!r}, and not a name and a class",
                where=str(file),
                hint="give lines such as photo.JPEG n01751748; a bare list of numbers does not say which image each is of, and "
                "those of ILSVRC's own list are not in the order of the classes' names",
            )
        yield name.rpartition("/")[2], rest[0]


def images_in(root: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Every image of a folder and the folders in it, in the order of their paths, and notes on what was passed over.

    Raises `DataError` where it holds none.
    """
    passed = _PassedOver()
    files = sorted(_images(root, passed, (_identity(root),)))
    if not files:
        raise DataError("holds no image", where=str(root), hint="give a folder with images in it, or files")
    return files, tuple(passed.notes(root))


class _PassedOver:
    """Counts of what is no image, by name or ending."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.loops: list[Path] = []
        self.loose = 0

    def notes(self, root: Path) -> Iterator[str]:
        count = sum(self.counts.values())
        if count:
            kinds = ", ".join(
                f"{number} × {name}" if number > 1 else name for name, number in self.counts.most_common(6)
            )
            others = len(self.counts) - 6
            more = f" and {others} more kind{'s' if others > 1 else ''}" if others > 0 else ""
            files = (
                "1 file or folder that is no image" if count == 1 else f"{count} files or folders that are no images"
            )
            yield f"{root}: passed over {files}: {kinds}{more}"
        if self.loose:
            images = "1 image lies" if self.loose == 1 else f"{self.loose} images lie"
            yield f"{root}: passed over what is in no class: {images} beside the folders of the classes"
        if self.loops:
            yield f"{root}: passed over a link that leads back to a folder above it: {self.loops[0]}"


def _empty_note(empty: Sequence[str], root: Path) -> Iterator[str]:
    if empty:
        named = ", ".join(empty[:10]) + (f" and {len(empty) - 10} more" if len(empty) > 10 else "")
        classes = "a class without an image" if len(empty) == 1 else f"{len(empty)} classes without an image"
        yield f"{root}: {classes}: {named}"


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"the folder cannot be read ({error.strerror})", where=str(folder), hint="check its permissions"
        ) from error


def _is_junk_folder(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK_FOLDERS


def _kind_of_junk(path: Path) -> str | None:
    """What a file that is no image is counted as; None for one that may be an image."""
    name = path.name
    if name.startswith("._"):
        return "._*"
    if name.startswith(".") or name.lower() in _JUNK_FILES:
        return name.strip()
    return path.suffix.lower() if path.suffix.lower() in _SIDECARS else None


def _class_folders(root: Path, passed: _PassedOver) -> list[Path]:
    """The folders that are classes; files beside them and what no user made are passed over."""
    if not root.is_dir():
        return []
    found: list[Path] = []
    for path in _entries(root):
        if path.is_dir():
            if _is_junk_folder(path.name):
                passed.counts[path.name] += 1
            else:
                found.append(path)
        elif (junk := _kind_of_junk(path)) is not None:
            passed.counts[junk] += 1
        elif path.suffix.lower() in _IMAGES:
            passed.loose += 1
        else:
            passed.counts[path.suffix.lower() or path.name] += 1
    return found


def _images(folder: Path, passed: _PassedOver, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Everything in a class's folder that may be an image, in folders inside and behind links too."""
    for path in _entries(folder):
        if path.is_dir():
            if _is_junk_folder(path.name):
                passed.counts[path.name] += 1
            elif _identity(path) in above:
                passed.loops.append(path)
            else:
                yield from _images(path, passed, (*above, _identity(path)))
        elif not path.is_file():
            passed.counts["broken links" if path.is_symlink() else "special files"] += 1
        elif (junk := _kind_of_junk(path)) is not None:
            passed.counts[junk] += 1
        else:
            yield path


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _holds_folders_only(folder: Path) -> bool:
    entries = _entries(folder)
    folders = [path for path in entries if path.is_dir() and not _is_junk_folder(path.name)]
    return bool(folders) and not any(path.is_file() and path.suffix.lower() in _IMAGES for path in entries)
