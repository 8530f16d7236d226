"""Where the public data sets come from: their files in the data folder, addresses and checksums."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from mapsto.data.io.download import find_or_download, find_or_unpack

__all__ = ["cifar10_files", "cifar100_files", "cifar_fs_list", "omniglot_list", "omniglot_zip"]

_CIFAR: Final = "https://www.cs.toronto.edu/~kriz/"
_OMNIGLOT: Final = "https://github.com/brendenlake/omniglot/raw/master/python/"
_LISTS: Final = "https://raw.githubusercontent.com/tristandeleu/pytorch-meta/"
_CIFAR_FS_LISTS: Final = (
    _LISTS + "ac3c48e5889645a2d05dd9a13b35aa2d986c0bec/torchmeta/datasets/assets/cifar100/cifar-fs/"
)
_OMNIGLOT_LISTS: Final = _LISTS + "2dd22382a3af27b2c4137fd7ed2822a32597162f/torchmeta/datasets/assets/omniglot/"

# MD5 where only that is published, SHA-256 else.
_CHECKSUMS: Final = {
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8",
    "images_background.zip": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation.zip": "6b91aef0f799c5bb55b94e3f2daec811",
    "cifar-fs/train.json": "e0feef3aef13fc7320d5deef5ae77d91edd28041d9a173939ec48cea68135ef0",
    "cifar-fs/val.json": "d9d6e267b5dad5c2267ff7dd98ebb18bb016f7929b56839422bb34fb53bcb3ef",
    "cifar-fs/test.json": "e199c74ef4f014ea3f74da1b6cf74795d32747183426c2a7e6ee4308d3bf47e3",
    "omniglot/train.json": "3432d95c10f2959c3894a2bebe63f70600b5c567a912d13200699b0634d7b191",
    "omniglot/val.json": "4aca6cbef626e818dace533b4c46363830eaaa158f2d06e29beb3e9772258d5f",
    "omniglot/test.json": "c3604a268c3e6bfb5f010e839dd986d0f149bfc81a93cf5de239a0543effea86",
}

Part = Literal["train", "validation", "test"]
_LIST_NAMES: Final = {"train": "train.json", "validation": "val.json", "test": "test.json"}


def cifar10_files(split: Part) -> list[Path]:
    """The record files of a split of CIFAR-10."""
    names = ["test_batch.bin"] if split == "test" else [f"data_batch_{i}.bin" for i in range(1, 6)]
    archive = "cifar-10-binary.tar.gz"
    paths = [f"cifar-10-batches-bin/{name}" for name in names]
    return find_or_unpack(paths, _CIFAR + archive, _CHECKSUMS[archive], what="CIFAR-10")


def cifar100_files(split: Part) -> tuple[Path, Path]:
    """The record file of a split of CIFAR-100, and the names of the fine classes."""
    archive = "cifar-100-binary.tar.gz"
    paths = [f"cifar-100-binary/{'test' if split == 'test' else 'train'}.bin", "cifar-100-binary/fine_label_names.txt"]
    records, names = find_or_unpack(paths, _CIFAR + archive, _CHECKSUMS[archive], what="CIFAR-100")
    return records, names


def cifar_fs_list(part: Part) -> Path:
    """The classes of a part of CIFAR-FS, as kept by Torchmeta: pairs of coarse and fine names."""
    name = f"cifar-fs/{_LIST_NAMES[part]}"
    url = _CIFAR_FS_LISTS + _LIST_NAMES[part]
    return find_or_download(f"splits/{name}", url, _CHECKSUMS[name], what="the class lists of CIFAR-FS")


def omniglot_zip(folder: Literal["background", "evaluation"]) -> Path:
    """One of the two zip files of Omniglot's drawings."""
    name = f"images_{folder}.zip"
    return find_or_download(f"omniglot-py/{name}", _OMNIGLOT + name, _CHECKSUMS[name], what="Omniglot")


def omniglot_list(part: Part) -> Path:
    """The characters of a part of Vinyals' split, as kept by Torchmeta: folder → alphabet → characters."""
    name = f"omniglot/{_LIST_NAMES[part]}"
    url = _OMNIGLOT_LISTS + _LIST_NAMES[part]
    return find_or_download(f"splits/{name}", url, _CHECKSUMS[name], what="the character lists of Omniglot")
