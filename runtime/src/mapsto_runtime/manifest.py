"""A package's ``manifest.json``, checked in every part that is used before anything else of the package is touched.

The validator is small and of its own: what it lets through cannot make the predictor fail otherwise than with an error for the user.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, NoReturn, cast

from mapsto_runtime import runtimes
from mapsto_runtime.errors import StoreError, TrustError
from mapsto_runtime.external_data import external_files
from mapsto_runtime.preprocessing.texts import ASSET
from mapsto_runtime.regular_files import read_file
from mapsto_runtime.signature import Signature

__all__ = ["FORMAT", "Manifest", "checked_signature", "read_manifest"]

FORMAT: Final = 5
"""The latest version of the package's format that is read; 2 knows other runtimes than ONNX Runtime, 3 how many ids an input has, 4 missing
values that are marked, categories of all other words and rows of float64, 5 texts and their tags."""

_LARGEST: Final = 1 << 28
"""Numbers of one input: more than any network takes, and less than memory holds."""
_DTYPES: Final = frozenset(
    ["float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"]
)
_AGAIN: Final = "export the package again"
_UPGRADE: Final = "upgrade with: pip install --upgrade mapsto (mapsto-runtime, where that is installed alone)"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a package holds; its files are those that were exported."""

    tree: Mapping[str, Any]
    """The parsed ``manifest.json``."""
    signature: Signature
    runtime: str
    """The runtime that opens the model."""
    model: str
    """The file that is opened."""
    adapting_model: str | None
    """The file that makes a head of examples."""
    files: Mapping[str, Path]
    """Every file of the package: its name → where it lies."""


class _Wrong(ValueError):
    """What is wrong with a part of the manifest."""


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a package, all of whose files are what it says.

    Raises
    ------
    StoreError
        It or a file is missing, unreadable, not whole or of a later format.
    TrustError
        A file is not the one that was exported, or lies outside the package.
    """
    path = folder / "manifest.json"
    try:
        tree = _parsed(path)
        _check_format(tree, folder)
        files = _files(tree, folder)
        signature = checked_signature(_part(tree, "signature", dict))
        if signature.preprocessing.kind == "text":
            signature = _with_tokenizer(signature, tree, files)
        runtime = str(tree.get("runtime", "onnxruntime"))
        model = tree.get("model")
        adaptation: Any = tree.get("adaptation")
        _require(adaptation is None or isinstance(adaptation, dict), "adaptation", "is no object")
        adapting: Any = (adaptation or {}).get("model")
        _require(adapting is None or adapting in files, "adaptation.model", "names no file of the package")
    except FileNotFoundError:
        raise StoreError(
            "there is no manifest.json",
            where=str(folder),
            hint="give the folder that export.onnx wrote, such as runs/demo/package",
        ) from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        what = str(error) if isinstance(error, _Wrong) else f"{type(error).__name__}: {error}"
        raise StoreError(f"not a package's manifest ({what})", where=str(path), hint=_AGAIN) from error
    if not isinstance(model, str) or model not in files:
        raise StoreError("the manifest names no model", where=str(path), hint=_AGAIN)
    if runtime not in runtimes.names():
        raise StoreError(
            f"the package is for the runtime '{runtime}', which this mapsto does not know",
            where=str(folder),
            hint=_UPGRADE,
        )
    for name in (model if runtime == "onnxruntime" else None, adapting):
        if name is not None:
            _check_external_data(name, files, folder)
    return Manifest(tree=tree, signature=signature, runtime=runtime, model=model, adapting_model=adapting, files=files)


def _parsed(path: Path) -> dict[str, Any]:
    def constant(name: str) -> NoReturn:
        raise _Wrong(f"it holds {name}, which is no number")

    tree: Any = json.loads(read_file(path).decode(), parse_constant=constant)
    _require(isinstance(tree, dict), "it", "is no object")
    return tree


def _check_format(tree: Mapping[str, Any], folder: Path) -> None:
    version = tree.get("format")
    _require(isinstance(version, int) and not isinstance(version, bool) and version >= 1, "format", "is no version")
    if cast("int", version) > FORMAT:
        shown = str(version) if cast("int", version) < 10**9 else "of a far later mapsto"
        raise StoreError(
            f"the package has format {shown}, this mapsto reads up to {FORMAT}",
            where=str(folder),
            hint=_UPGRADE,
        )


def _with_tokenizer(signature: Signature, tree: Mapping[str, Any], files: Mapping[str, Path]) -> Signature:
    _require(ASSET in files, "files", f"lack the tokenizer, {ASSET}")
    known = tree["files"][ASSET]["sha256"]
    _require(
        signature.preprocessing.tokenizer == known,
        "signature.preprocessing.tokenizer",
        "is not the package's tokenizer",
    )
    return signature.reading(read_file(files[ASSET]))


# ------------------------------------------------------------------------------------------------------------------- files


def _files(tree: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    entries = _part(tree, "files", dict)
    for name in entries:
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or re.search(r"[\\:\0]", name):
            raise TrustError(
                f"the manifest names '{name}', outside the package", where=str(folder), hint="do not use this package"
            )
    for name, entry in entries.items():
        expected: Any = cast("dict[str, Any]", entry).get("sha256") if isinstance(entry, dict) else None
        _require(
            isinstance(expected, str) and bool(re.fullmatch("[0-9a-f]{64}", expected)),
            f"files.{name}",
            "has no SHA-256",
        )
        _verify(folder, name, cast("str", expected))
    return {name: folder / name for name in entries}


def _verify(folder: Path, name: str, expected: str) -> None:
    path = folder / name
    try:
        if path.exists() and not path.is_file():
            raise StoreError(f"'{name}' is no file", where=str(folder), hint=_AGAIN)
        digest = hashlib.sha256(read_file(path)).hexdigest()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StoreError(
            f"'{name}' cannot be read ({reason})", where=str(folder), hint="copy or export the package again"
        ) from error
    if digest != expected:
        raise TrustError(
            f"'{name}' is not the file that was exported: its SHA-256 is {digest[:12]}…, the manifest says {expected[:12]}…",
            where=str(folder),
            hint="copy or export the package again",
        )


def _check_external_data(model: str, files: Mapping[str, Path], folder: Path) -> None:
    """An ONNX file may name others that hold its weights: only such as the manifest holds, whose content is verified."""
    try:
        names = external_files(files[model].read_bytes())
    except ValueError as error:
        raise StoreError(f"'{model}' is no whole ONNX file ({error})", where=str(folder), hint=_AGAIN) from error
    for name in names:
        beside = (PurePosixPath(model).parent / name).as_posix()
        if beside not in files:
            raise TrustError(
                f"'{model}' takes its weights from '{name}', which the manifest does not hold",
                where=str(folder),
                hint="do not use this package",
            )


# --------------------------------------------------------------------------------------------------------------- signature


def checked_signature(tree: Mapping[str, Any]) -> Signature:
    """The signature of a JSON object. Raises `ValueError` that names the part for one that a predictor could not keep to."""
    _only(tree, ("inputs", "outputs", "preprocessing", "classes", "answers"), "signature")
    for side in ("inputs", "outputs"):
        specs = _part(tree, side, list, "signature")
        _require(bool(specs), f"signature.{side}", "is empty")
        for number, spec in enumerate(specs):
            _check_spec(spec, f"signature.{side}.{number}", ("ids",) if side == "inputs" else ())
    before = _part(tree, "preprocessing", dict, "signature")
    _check_preprocessing(before)
    classes = tree.get("classes")
    _require(classes is None or (_texts(classes) and bool(classes)), "signature.classes", "is no list of names")
    _require(len(set(classes or ())) == len(classes or ()), "signature.classes", "names a class twice")
    _require(
        tree.get("answers", "classes") in ("classes", "labels", "values", "tags"), "signature.answers", "is not known"
    )
    signature = Signature.from_plain({"classes": None, **tree})
    _check_input(signature)
    _check_output(signature)
    columns, shape = signature.preprocessing.columns, signature.inputs[0].shape
    width = sum(column.width for column in columns)
    _require(
        not columns or shape[1:] == (width,),
        "signature.preprocessing.columns",
        f"give {width} numbers, not {shape[1:]}",
    )
    return signature


def _check_input(signature: Signature) -> None:
    """What the prepared samples are, and what the network takes."""
    where = "signature.inputs"
    _require(len(signature.inputs) == 1, where, f"are {len(signature.inputs)}, and a sample is one")
    spec, before = signature.inputs[0], signature.preprocessing
    takes = ("float32", "int64")
    if before.kind == "text":
        takes = ("int64",)
        shape = ("*",) if before.texts == 1 else (before.texts, "*")
        found = tuple("*" if isinstance(size, str) else size for size in spec.shape[1:])
        _require(found == shape, f"{where}.0.shape", f"is {spec.shape[1:]} behind the first, and texts have any length")
        _require(len(spec.ids) == 1, f"{where}.0.ids", "do not say how many tokens there are")
        _require(before.padding < spec.ids[0], "signature.preprocessing.padding", "is no token's id")
    if before.kind == "image" or before.columns:
        takes = ("float32", "float64") if before.columns else ("float32",)
    _require(spec.dtype in takes, f"{where}.0.dtype", f"is {spec.dtype}, and samples become {' or '.join(takes)}")
    _require(
        isinstance(spec.shape[0], str), f"{where}.0.shape", "does not begin with a name, for any number of samples"
    )
    prepared = (before.channels, *before.size)
    _require(
        before.kind != "image" or spec.shape[1:] == prepared,
        f"{where}.0.shape",
        f"is {spec.shape[1:]} behind the first, and images become {prepared}",
    )
    _require(
        len(spec.ids) in (0, 1, *spec.shape[1:2]) and (not spec.ids or before.kind != "image"),
        f"{where}.0.ids",
        "are not one number, or one for each place of the first axis",
    )


def _check_output(signature: Signature) -> None:
    """What is made of the first output: scores of the classes, a map or an embedding."""
    spec, where = signature.outputs[0], "signature.outputs.0"
    _require(spec.dtype not in ("bool", "bfloat16"), f"{where}.dtype", f"is {spec.dtype}, of which no scores are made")
    sizes = spec.shape[1:]
    texts = signature.preprocessing.kind == "text" and len(sizes) > 1  # an answer for each token
    _require(
        isinstance(spec.shape[0], str) and all(isinstance(size, int) for size in sizes[: len(sizes) - texts]),
        f"{where}.shape",
        "is not a name, for any number of samples, and sizes",
    )
    classes = signature.classes
    tagging = signature.answers == "tags"
    _require(
        not tagging or (texts and len(sizes) == 2 and classes is not None and signature.preprocessing.texts == 1),
        "signature.answers",
        "are tags, and the output is none for each token of a text",
    )
    _require(
        classes is None or (bool(sizes) and sizes[0] == len(classes)),
        f"{where}.shape",
        f"is {sizes} behind the first, for {len(classes or ())} classes",
    )


def _check_spec(spec: Any, where: str, more: tuple[str, ...] = ()) -> None:
    _require(isinstance(spec, dict), where, "is no object")
    _only(spec, ("name", "dtype", "shape", *more), where)
    ids = spec.get("ids", [])
    _require(
        isinstance(ids, list) and all(_whole(count, 0, 1 << 31) for count in ids), f"{where}.ids", "are no numbers"
    )
    _require(isinstance(spec.get("name"), str) and bool(spec["name"]), f"{where}.name", "is no name")
    _require(isinstance(spec.get("dtype"), str) and spec["dtype"] in _DTYPES, f"{where}.dtype", "is not known")
    shape = _part(spec, "shape", list, where)
    sizes = [size for size in shape if not isinstance(size, str)]
    _require(bool(shape) and all(_whole(size, 1, _LARGEST) for size in sizes), f"{where}.shape", "is no shape")
    _require(math.prod(sizes) <= _LARGEST, f"{where}.shape", "is too large")


def _check_preprocessing(before: Mapping[str, Any]) -> None:
    where = "signature.preprocessing"
    if before.get("kind") == "text":
        _check_texts(before, where)
        return
    _only(before, ("kind", "channels", "size", "mean", "std", "ink", "fit", "columns", "header"), where)
    _require(before.get("kind", "image") in ("image", "none"), f"{where}.kind", "is not known")
    _require(before.get("ink", "as_is") in ("as_is", "light"), f"{where}.ink", "is not known")
    _require(before.get("fit", "stretch") in ("stretch", "crop"), f"{where}.fit", "is not known")
    channels = before.get("channels", 3)
    _require(_whole(channels, 1, 4096), f"{where}.channels", "is no number of channels")
    size = _part(before, "size", list, where)
    _require(
        len(size) == 2 and all(_whole(side, 1, 1 << 15) for side in size), f"{where}.size", "is no height and width"
    )
    _require(channels * size[0] * size[1] <= _LARGEST, f"{where}.size", "is too large")
    for name in ("mean", "std"):
        values = _part(before, name, list, where)
        _require(
            len(values) in (1, channels) and all(map(_finite, values)), f"{where}.{name}", "is not one number a channel"
        )
        _require(name != "std" or all(value > 1e-30 for value in values), f"{where}.std", "is not above zero")
    header = before.get("header", [])
    _require(_texts(header), f"{where}.header", "is no list of names")
    columns = before.get("columns", [])
    _require(isinstance(columns, list), f"{where}.columns", "is no list")
    _require(not columns or before.get("kind") == "none", f"{where}.columns", "are given for images")
    for number, column in enumerate(columns):
        _check_column(column, f"{where}.columns.{number}")
    names = [column["name"] for column in columns]
    _require(len(set(names)) == len(names), f"{where}.columns", "name one twice")
    _require(not header or set(names) <= set(header), f"{where}.header", "lacks a column")


def _check_texts(before: Mapping[str, Any], where: str) -> None:
    _only(before, ("kind", "tokenizer", "length", "padding", "texts", "header"), where)
    digest = before.get("tokenizer")
    _require(
        isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) is not None,
        f"{where}.tokenizer",
        "is no SHA-256",
    )
    _require(_whole(before.get("length"), 3, 1 << 16), f"{where}.length", "is no number of tokens")
    _require(_whole(before.get("padding"), 0, 1 << 31), f"{where}.padding", "is no token's id")
    _require(before.get("texts") in (1, 2), f"{where}.texts", "is not 1 or 2")
    _require(_texts(before.get("header", [])), f"{where}.header", "is no list of names")


def _check_column(column: Any, where: str) -> None:
    _require(isinstance(column, dict), where, "is no object")
    _only(
        column, ("name", "type", "categories", "encode", "mean", "std", "fill", "decimal", "missing", "others"), where
    )
    _require(isinstance(column.get("name"), str), f"{where}.name", "is no name")
    _require(column.get("type", "numbers") in ("numbers", "words"), f"{where}.type", "is not known")
    _require(column.get("encode", "one_hot") in ("one_hot", "ordinal"), f"{where}.encode", "is not known")
    _require(column.get("decimal", ".") in (".", ","), f"{where}.decimal", "is not known")
    _require(isinstance(column.get("others", False), bool), f"{where}.others", "is not true or false")
    _require(column.get("missing", "filled") in ("filled", "marked"), f"{where}.missing", "is not known")
    words = _part(column, "categories", list, where)
    _require(_texts(words) and len(set(words)) == len(words), f"{where}.categories", "is no list of different words")
    _require(bool(words) or column.get("type") != "words", f"{where}.categories", "does not go with its type")
    _require(_finite(column.get("mean", 0.0)), f"{where}.mean", "is no number")
    std = column.get("std", 1.0)
    _require(_finite(std) and std > 1e-30, f"{where}.std", "is not above zero")
    fill = _part(column, "fill", list, where)
    one_hot = column.get("type") == "words" and column.get("encode", "one_hot") == "one_hot"
    width = len(words) if one_hot else 1
    _require(
        len(fill) in (0, width) and all(map(_finite, fill)),
        f"{where}.fill",
        "is not one number for each that it becomes",
    )


def _require(holds: bool, where: str, what: str) -> None:
    if not holds:
        raise _Wrong(f"{where} {what}")


def _part(tree: Mapping[str, Any], name: str, kind: Callable[..., Any], where: str = "") -> Any:
    value = tree.get(name)
    title = f"{where}.{name}" if where else name
    _require(isinstance(value, cast("type", kind)), title, "is missing" if value is None else "is of another kind")
    return value


def _only(tree: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    for name in tree:
        _require(name in known, f"{where}.{name}", "is not known")


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in cast("list[Any]", value))
