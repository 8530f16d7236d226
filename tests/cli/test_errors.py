"""A hostile user at the command line: every mistake ends with exit code 2, a place and a remedy, and nothing half-written."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.command import Done
from tests.command import mapsto as command

from mapsto.cli import main as cli
from mapsto.data.io.download import cache_folder
from mapsto.kinds.canonical import dumps
from mapsto.mappings.evaluate.size import Size
from mapsto.mappings.export.onnx import Onnx
from mapsto.report import build as reports
from mapsto.store import disk_error
from mapsto.store.digest import digest_json

DATA = """\
schema: 1
data:
  d: {subset: {data: {digits: {size: 16}}, per_class: 4}}
  three: {subset: {data: $d, classes: ['0', '1', '2']}}
"""
NET = "steps:\n  - networks.conv4: {channels: 1, size: 16, width: 2}\n"
TRAIN = "  - train.supervised: {data: $d, epochs: 1}\n    as: t\n"
GOOD = DATA + NET + TRAIN + "    observe: {size: {evaluate.size: {}}}\n  - export.onnx: {samples: 4}\n"
HEAD = "schema: 1\nsteps:\n"


def mapsto(*arguments: object, code: int = 2, given: bytes = b"") -> Done:
    return command(*arguments, code=code, given=given)


def run(text: str | bytes, *more: object, code: int = 2) -> Done:
    Path("x.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return mapsto("run", "x.yaml", "--threads", 1, "--out", "out", *more, code=code)


def nothing_half_written(*roots: str) -> None:
    for root in roots or ("out", "store"):
        assert not list(Path(root).rglob("*.tmp"))
    assert not Path("out/report.json").exists()
    assert not Path("out/package").exists()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store and the output of a good run."""
    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("MAPSTO_STORE", "store")
        run(GOOD, code=0)
    return place


@pytest.fixture(scope="module")
def shared(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of that store, used by all tests that only add to it."""
    return Path(shutil.copytree(made / "store", tmp_path_factory.mktemp("shared") / "store"))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAPSTO_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MAPSTO_DATA", str(tmp_path / "data"))
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "kernels").symlink_to(cache_folder() / "kernels")  # which take a minute to compile
    monkeypatch.setenv("MAPSTO_CACHE", str(cache))
    monkeypatch.setenv("MAPSTO_OFFLINE", "1")


@pytest.fixture
def with_shared(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPSTO_STORE", str(shared))


# ----------------------------------------------------------------------------------------------------------------- recipes

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)
)
BAD_RECIPES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "x.yaml:1:1: a recipe is a mapping"),
    "binary": (b"\x89PNG\r\n\x1a\n\xff", "not a text in UTF-8"),
    "zero bytes": (b"\x00" * 20, "not valid YAML"),
    "tabs": ("schema: 1\nsteps:\n\t- x", "x.yaml:3:1: not valid YAML: found character '\\t'"),
    "a string": ("hello", "a recipe is a mapping"),
    "a list": ("[1, 2]", "a recipe is a mapping"),
    "two documents": (HEAD + "  - networks.conv4: {}\n---\na: 1\n", "x.yaml:4:1: not valid YAML"),
    "python object": (
        HEAD + "  - !!python/object/apply:os.system ['touch fired']",
        "could not determine a constructor",
    ),
    "alias bomb": ("schema: 1\n" + LAUGHS + "steps: *i\n", "write it without aliases"),
    "alias of itself": ("schema: 1\nsteps: &s [*s]", "x.yaml:2:8: nested too deeply"),
    "deep": ("schema: 1\nsteps: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
    "deeper than any recipe": ("schema: 1\nsteps: " + "[" * 200 + "]" * 200, "nested too deeply"),
    "impossible date": ("schema: 1\ntitle: 2020-01-41\nsteps: [{networks.conv4: {}}]", "day is out of range"),
    "later schema": ("schema: 2\nsteps: [{networks.conv4: {}}]", "x.yaml:1:1: schema 2 is not known; upgrade mapsto"),
    "schema of another type": ("schema: true\nsteps: [{networks.conv4: {}}]", "write `schema: 1`"),
    "no schema": ("steps: [{networks.conv4: {}}]", "write `schema: 1`"),
    "no steps": ("schema: 1", "steps: a list of at least one step"),
    "null steps": ("schema: 1\nsteps:", "steps: a list of at least one step"),
    "steps a mapping": ("schema: 1\nsteps: {networks.conv4: {}}", "steps: a list"),
    "a null step": (HEAD + "  - null", "x.yaml:3:5: a step is a name with its fields"),
    "a list as step": (HEAD + "  - [networks.conv4]", "a step is a name with its fields"),
    "fields a list": (HEAD + "  - networks.conv4: [1]", "the fields of 'networks.conv4' are not a mapping"),
    "two names in a step": (HEAD + "  - {networks.conv4: {}, networks.vgg: {}}", "expected one name"),
    "unknown entry": ("schema: 1\nsed: 3\nsteps: [{networks.conv4: {}}]", "did you mean 'seed'?"),
    "entry of a list": ("schema: 1\n? [a]\n: 2\nsteps: [{networks.conv4: {}}]", "x.yaml:2:3: not valid YAML"),
    "seed a word": ("schema: 1\nseed: x\nsteps: [{networks.conv4: {}}]", "x.yaml:2:1: seed: a whole number"),
    "seed too large": (f"schema: 1\nseed: {2**63}\nsteps: [{{networks.conv4: {{}}}}]", "a whole number from 0 to"),
    "seed beyond all": (f"schema: 1\nseed: {'9' * 5000}\nsteps: [{{networks.conv4: {{}}}}]", "Exceeds the limit"),
    "data a list": ("schema: 1\ndata: [1]\nsteps: [{networks.conv4: {}}]", "x.yaml:2:1: data: label"),
    "null data": ("schema: 1\ndata: {d: null}\nsteps: [{networks.conv4: {}}]", "x.yaml:2:8: expected one name"),
    "data label a number": ("schema: 1\ndata: {1: {digits: {}}}\nsteps: [{networks.conv4: {}}]", "a label is letters"),
    "data of each other": (
        "schema: 1\ndata: {d: {subset: {data: $e}}, e: {subset: {data: $d}}}\nsteps: [{networks.conv4: {}}]",
        "x.yaml:2:21: no earlier step or data entry is labelled 'e'",
    ),
    "quick a number": ("schema: 1\nquick: 3\nsteps: [{networks.conv4: {}}]", "x.yaml:2:1: quick: label.field"),
    "optional a number": ("schema: 1\noptional: 3\nsteps: [{networks.conv4: {}}]", "optional: a list of labels"),
    "optional of lists": ("schema: 1\noptional: [[a]]\nsteps: [{networks.conv4: {}}]", "optional: a list of labels"),
    "targets a number": ("schema: 1\ntargets: 3\nsteps: [{networks.conv4: {}}]", "targets: a list"),
    "target without goal": ("schema: 1\ntargets: [{what: a}]\nsteps: [{networks.conv4: {}}]", "a target is {what"),
    "goal in words": (
        "schema: 1\ntargets: [{what: a, metric: b, goal: about 3}]\nsteps: [{networks.conv4: {}}]",
        "x.yaml:2:32: goal 'about 3' is not like '>= 87'",
    ),
    "goal without a number": (
        "schema: 1\ntargets: [{what: a, metric: b, goal: '>= abc'}]\nsteps: [{networks.conv4: {}}]",
        "goal '>= abc' is not like '>= 87'",
    ),
    "name a list": ("schema: 1\nname: [a]\nsteps: [{networks.conv4: {}}]", "name: letters"),
    "name a path": ("schema: 1\nname: ../evil\nsteps: [{networks.conv4: {}}]", "x.yaml:2:1: name: letters"),
    "title a mapping": ("schema: 1\ntitle: {a: b}\nsteps: [{networks.conv4: {}}]", "title: a text"),
    "duplicate keys": (HEAD + "  - networks.conv4: {width: 4, width: 8}", "x.yaml:3:32: 'width' is written twice"),
    "duplicate data": ("schema: 1\ndata:\n  d: {digits: {}}\n  d: {digits: {}}\n" + NET, "x.yaml:4:3: 'd' is written"),
    "label a number": (HEAD + "  - networks.conv4: {}\n    as: 3", "x.yaml:4:5: field 'label'"),
    "label a list": (HEAD + "  - networks.conv4: {}\n    as: [a]", "x.yaml:4:5: field 'label'"),
    "label of two words": (HEAD + "  - networks.conv4: {}\n    as: a b", "should match pattern"),
    "duplicate labels": (DATA + NET + "    as: a\n" + TRAIN.replace("as: t", "as: a"), "'a' is taken already"),
    "label of data": (DATA + NET + "    as: d\n", "the label 'd' is taken already"),
    "observe a number": (HEAD + "  - networks.conv4: {}\n    observe: 3", "x.yaml:4:5: field 'reports'"),
    "observe by no report": (HEAD + "  - networks.conv4: {}\n    observe: {a: {networks.conv4: {}}}", "not a Report"),
    "report named as a path": (HEAD + "  - networks.conv4: {}\n    observe: {../a: {evaluate.size: {}}}", "pattern"),
    "fork of nothing": (DATA + NET + "  - fork: {}", "at least 1 item"),
    "fork of a list": (DATA + NET + "  - fork: {a: [prune.magnitude]}", "a step is a name with its fields"),
    "fork without choose": (
        DATA + NET + "  - fork: {a: {prune.magnitude: {macs: 0.5}}}\n  - export.onnx: {}",
        "these steps do not compose: fork gives Forked, but export.onnx takes Network",
    ),
    "unknown mapping": (DATA + NET + "  - prune.talyor: {}", "x.yaml:7:5: unknown mapping 'prune.talyor'"),
    "nearest mapping": (DATA + NET + "  - prune.talyor: {}", "did you mean 'prune.taylor'?"),
    "unknown field": (DATA + NET + "  - prune.magnitude: {mac: 0.5}", "unknown field 'mac' (did you mean 'macs'?)"),
    "unknown data set": ("schema: 1\ndata: {d: {digit: {}}}\n" + NET, "did you mean 'digits'?"),
    "unknown field of data": ("schema: 1\ndata: {d: {digits: {sise: 8}}}\n" + NET, "did you mean 'size'?"),
    "wrong type": (DATA + NET + "  - prune.magnitude: {macs: half}", "x.yaml:7:23: field 'macs'"),
    "out of range": (DATA + NET + "  - prune.magnitude: {macs: 2}", "less than or equal to 1, got 2"),
    "not finite": (DATA + NET + "  - prune.magnitude: {macs: .nan}", "field 'macs'"),
    "a date": (DATA + NET + "  - prune.magnitude: {macs: 2020-01-01}", "field 'macs'"),
    "no budget": (DATA + NET + "  - prune.magnitude: {}", "no budget is given"),
    "unknown reference": (DATA + NET + "  - train.supervised: {data: $x}", "is labelled 'x' (known: d, three)"),
    "reference of another kind": (DATA + NET + "    as: n\n  - train.supervised: {data: $n}", "a Dataset is needed"),
    "steps that do not compose": (
        DATA + NET + "  - export.onnx: {}\n  - prune.magnitude: {macs: 0.5}",
        "x.yaml:8:5: these steps do not compose: export.onnx gives Package, but prune.magnitude takes Network; take one",
    ),
    "a report that does not compose": (
        DATA + NET + "  - export.onnx: {}\n    observe: {a: {evaluate.accuracy: {data: $d}}}",
        "x.yaml:8:15: export.onnx gives Package, but evaluate.accuracy takes Network",
    ),
    "steps of a branch that do not compose": (
        DATA + NET + "  - fork:\n      a:\n        - export.onnx: {}\n        - prune.magnitude: {macs: 0.5}",
        "x.yaml:10:11: export.onnx gives Package, but prune.magnitude takes Network",
    ),
    "a branch that does not compose": (
        DATA + NET + "  - fork: {a: {networks.conv4: {}}}\n  - choose.branch: {label: a}",
        "x.yaml:7:12: these steps do not compose: networks.conv4 gives Network, but networks.conv4 takes nothing",
    ),
    "choose of no branch": (
        DATA + NET + "  - fork: {mild: {prune.magnitude: {macs: 0.5}}}\n  - choose.branch: {label: mold}",
        "x.yaml:8:5: these steps do not compose: fork gives Forked, but choose.branch takes the branch 'mold', which is none "
        "of its branches (did you mean 'mild'?)",
    ),
    "choose of a package": (
        DATA + NET + "  - fork: {a: {export.onnx: {}}}\n  - choose.branch: {label: a}",
        "choose.branch takes a Network: branch 'a' gives Package",
    ),
    "best of a package": (
        DATA + NET + "  - fork: {a: {export.onnx: {}}}\n  - choose.best: {by: {evaluate.size: {}}}",
        "choose.best takes Networks: branch 'a' gives Package",
    ),
    "errors in a branch": (
        DATA
        + NET
        + "  - fork:\n      a:\n        - prune.magnitude: {macs: 2}\n          as: x\n        - prune.talyor: {}\n"
        "  - choose.branch: {label: a}\n  - distill.logits: {teacher: $x, data: $d}",
        "2 errors x.yaml:9:29: field 'macs': input should be less than or equal to 1, got 2 "
        "x.yaml:11:11: unknown mapping 'prune.talyor'",
    ),
    "no network to begin with": (HEAD + "  - prune.magnitude: {macs: 0.5}", "begin with a networks.* step"),
    "missing data": (
        "schema: 1\ndata: {d: {omniglot: {}}}\n" + NET + TRAIN,
        "or set MAPSTO_DATA to a folder that holds omniglot-py/images_background.zip",
    ),
}


@pytest.mark.parametrize("case", BAD_RECIPES)
def test_a_bad_recipe(case: str) -> None:
    text, message = BAD_RECIPES[case]
    began = time.process_time()
    assert message in run(text).err
    assert time.process_time() - began < 10, "refused at once, not after hours"
    nothing_half_written()
    assert not list(Path("store").glob("keys/*/*"))
    assert not Path("fired").exists()


def test_a_recipe_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Is a directory" in mapsto("run", ".").err
    assert "there is no recipe" in mapsto("run", "nowhere.yaml").err
    assert "File name too long" in mapsto("run", "x" * 5000).err
    assert "null byte" in mapsto("run", "a\0b").err

    def denied(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", "x.yaml")

    Path("x.yaml").write_text("schema: 1", encoding="utf-8")
    monkeypatch.setattr("mapsto_runtime.regular_files.open", denied, raising=False)
    assert "x.yaml: the recipe cannot be read: Permission denied" in mapsto("run", "x.yaml").err


SETTINGS = {
    "t.epochs=[1,2]": "field 'epochs'",
    "t.epochs={a: b}": "field 'epochs'",
    "t.epochs=": "field 'epochs': input should be a valid integer, got None",
    "t.epochs=1.5": "fractional part",
    "t.epochs=.inf": "finite",
    "t.epochs=!!python/object/apply:os.system ['touch fired']": "--set t.epochs:1:1: not valid YAML",
    "t.epochs=[": "--set t.epochs:1:2: not valid YAML",
    "t.epochs.x=3": "'epochs' holds no fields",
    "t..epochs=3": "it is not like label.field",
    "t.epoch=3": "did you mean 'epochs'?",
    "t.data=$t": "no earlier step or data entry is labelled 't'",
    "t.data=3": "field 'data': should be a dataset",
    "d.data.digits.size=4": "greater than or equal to 8",
    "d=3": "name a field of it, as in d.field",
    "techer.epochs=3": "known: d, networks.conv4, t, t.size, three, train.supervised, train.supervised.size",
    "train.supervisd.epochs=3": "called 'train.supervisd' (did you mean 'train.supervised'?)",
    "train.supervised.epochs=0": "got 0, by --set train.supervised.epochs",
    "d.per_class=0": "got 0, by --set d.per_class",
    "seed=x": "seed: a whole number",
    "seed=-4": "seed: a whole number",
    "seed=[1]": "seed: a whole number",
    "=3": "is not like label.field=value",
    "t": "is not like label.field=value",
}
OPTIONS = {
    "--seeds=": "not a list of different whole numbers",
    "--seeds=1.5": "not a list of different whole numbers",
    "--seeds=-1": "not a list of different whole numbers",
    "--seeds=0,0": "not a list of different whole numbers",
    f"--seeds={2**63}": "not a list of different whole numbers",
    f"--seed={2**63}": "--seed",
    "--seed=x": "--seed",
    "--threads=0": "--threads",
    "--device=gpu7": "unknown device 'gpu7'",
    "--device=": "unknown device ''",
    "--device=cuda:x": "unknown device 'cuda:x'",
    "--precision=8-true": "unknown precision '8-true'",
    "--force=nope": "--force names no step: nope",
    "--out=x.yaml": "cannot write here",
    "--out=/proc/x": "cannot write here",
    "--store=x.yaml": "cannot make the store's folder",
    "--store=": "the store's place is empty",
    "--store=nonsense://x": "Protocol not known",
    "--zork": "there is no option '--zork'",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_bad_setting(setting: str) -> None:
    assert SETTINGS[setting] in run(GOOD.replace("  - export.onnx: {samples: 4}\n", ""), "--set", setting).err
    assert not Path("out").exists()
    assert not Path("fired").exists()


@pytest.mark.parametrize("option", OPTIONS)
def test_a_bad_option(option: str) -> None:
    assert OPTIONS[option] in run(GOOD, option).err
    nothing_half_written()
    assert not list(Path("store").glob("keys/*/*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
@pytest.mark.usefixtures("with_shared")
def test_a_device_that_is_not_here() -> None:
    done = run(DATA + NET + TRAIN, "--device", "cuda")
    assert "step 2, train.supervised (t)" in done.err
    assert "`mapsto doctor` says which devices there are" in done.err


def test_other_commands() -> None:
    Path("x.yaml").write_text("schema: 1\n")
    for arguments, message in {
        (): "Usage: ",
        ("zork",): "there is no command 'zork'",
        ("run",): "Missing argument",
        ("show", "../../etc"): "nothing is called",
        ("new", ""): "needs a name",
        ("new", "x"): "exists already",
        ("new", "y", "--from", "."): "there is no recipe",
        ("new", "/proc/x"): "cannot be written",
        ("store", "ls", "--store", "x.yaml"): "cannot make the store's folder",
        ("store", "gc", "--keep-days", "-1"): "--keep-days",
        ("report", "nowhere"): "there is no report here",
        ("predict", "nowhere", "x.png"): "there is no manifest.json",
    }.items():
        assert message in mapsto(*arguments).err


# -------------------------------------------------------------------------------------------------------------------- data


def pictures(folder: str, *, classes: int = 2) -> Path:
    for label in range(classes):
        Path(folder, f"c{label}").mkdir(parents=True)
        for i in range(3):
            pixels = np.random.default_rng(10 * label + i).integers(0, 255, (20, 20), np.uint8)
            Image.fromarray(pixels).save(Path(folder, f"c{label}", f"{i}.png"))
    return Path(folder)


def learning(node: str, *more: object, code: int = 2) -> Done:
    done = run(f"schema: 1\ndata: {{d: {node}}}\n" + NET + TRAIN, *more, code=code)
    if code == 2:
        nothing_half_written("out")
    return done


def huge_png() -> bytes:
    """A few bytes that claim to be an image of 50 gigapixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 250_000, 200_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.usefixtures("with_shared")
def test_folders_of_images() -> None:
    folder = pictures("some")
    whole = (folder / "c0/0.png").read_bytes()
    (folder / "c0/0.png").write_bytes(whole[: len(whole) // 2])
    (folder / "c1/note.dat").write_text("no image")
    (folder / "c1/note.txt").write_text("passed over")
    (folder / "c1/huge.png").write_bytes(huge_png())
    done = learning("{images: {folder: some, size: 16, channels: 1}}")
    assert "step 2, train.supervised (t)" in done.err
    assert "3 files are not whole images: " in done.err
    assert "some/c0/0.png" in done.err
    assert "set skip_broken: true" in done.err
    done = learning("{images: {folder: some, size: 16, channels: 1, skip_broken: true}}", code=0)
    assert json.loads(Path("out/report.json").read_text())["steps"][-1]["kind_out"] == "Network"
    shutil.rmtree("out")
    pictures("one", classes=1)
    assert "only one class has samples (c0)" in learning("{images: {folder: one, size: 16, channels: 1}}").err
    for broken in pictures("junk").rglob("*.png"):
        broken.write_bytes(b"junk")
    assert "not one sample" in learning("{images: {folder: junk, size: 16, channels: 1, skip_broken: true}}").err
    Path("empty").mkdir()
    assert "put each class in a folder of its own" in learning("{images: {folder: empty}}").err
    assert "there is no" in learning("{images: {folder: nowhere}}").err
    assert "is no path" in learning("{images: {folder: ''}}").err


class Bomb:
    """What a malicious file holds: unpickling it makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch fired",)


@pytest.mark.usefixtures("with_shared")
@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (lambda x, y: x, lambda y: y * 0, "only one class has samples (0), at least 2 are needed"),
        (lambda x, y: x[:0], lambda y: y[:0], "there is not one sample"),
        (lambda x, y: x, lambda y: y[:5], "give inputs of shape (N, ...) and N labels"),
        (lambda x, y: x, lambda y: y - 5, "is outside 0 to"),
        (lambda x, y: x, lambda y: y + 10**9, "number the classes from 0 without gaps"),
        (lambda x, y: np.where(x > 250, np.nan, x / 255), lambda y: y, "holds nan"),
        (lambda x, y: x, lambda y: np.where(y, np.inf, 1.0), "holds inf"),
        (lambda x, y: x.astype(np.complex64), lambda y: y, "inputs of type complex64 are no numbers"),
        (lambda x, y: np.array([["a"]] * len(y)), lambda y: y, "are no numbers"),
        (lambda x, y: np.array([Bomb()] * len(y)), lambda y: y, "not a whole file of plain arrays"),
        (lambda x, y: x / 255, lambda y: y, "expected images of shape"),
    ],
)
def test_arrays(inputs: Callable[[Any, Any], Any], labels: Callable[[Any], Any], message: str) -> None:
    x, y = np.random.default_rng(0).integers(0, 256, (12, 16, 16), dtype=np.uint8), np.arange(12) % 2
    np.savez("a.npz", inputs=inputs(x, y), labels=labels(y))
    done = learning("{arrays: {file: a.npz}}")
    assert message in done.err
    assert "step 2, train.supervised (t)" in done.err
    assert not Path("fired").exists()


@pytest.mark.usefixtures("with_shared")
def test_a_truncated_file_of_arrays() -> None:
    Path("a.npz").write_bytes(b"PK\x03\x04 and no more")
    assert "not a whole file of plain arrays" in learning("{arrays: {file: a.npz}}").err
    assert "there is no" in learning("{arrays: {file: b.npz}}").err


TABLE = "a,b,y\n" + "".join(f"{i},{2 * i},{'pq'[i % 2]}\n" for i in range(12))


@pytest.mark.usefixtures("with_shared")
@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("", "target: y", "t.csv"),
        ("a,b,y\n", "target: y", "t.csv"),
        (TABLE, "target: z", "t.csv"),
        (TABLE.replace("p", "q"), "target: y", "one class"),
        (TABLE.replace("3,6", "3,nan"), "target: y, missing: refuse", "t.csv"),
        (TABLE.replace("3,6", "3,inf"), "target: y", "t.csv"),
        (TABLE + "1,2\n", "target: y", "t.csv"),
        ("\0\1\2", "target: y", "t.csv"),
    ],
)
def test_tables(text: str, fields: str, message: str) -> None:
    Path("t.csv").write_text(text)
    assert message in learning(f"{{table: {{file: t.csv, {fields}}}}}").err


# ------------------------------------------------------------------------------------------------------------- checkpoints

CONV4 = "factory: 'mapsto.nn.networks.conv4:conv4', arguments: {channels: 1, size: 16, width: 2}, channels: 1, size: 16"


def checkpoint(fields: str, *more: object) -> str:
    done = run(HEAD + f"  - networks.checkpoint: {{{fields}}}\n", *more)
    nothing_half_written("out")
    return done.err


def test_a_trusted_factory_in_a_file_of_this_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [place for place in sys.path if place != str(Path.cwd())])
    Path("my_rows.py").write_text("from torch import nn\n\ndef mine():\n    return nn.Linear(2, 2)\n")
    Path("rows.csv").write_text("a,b,y\n" + "1,2,no\n3,4,yes\n" * 5)
    torch.save(torch.nn.Linear(2, 2).state_dict(), "linear.pt")
    recipe = (
        "schema: 1\ndata: {t: {table: {file: rows.csv, target: y}}}\nsteps:\n"
        "  - networks.checkpoint: {factory: 'my_rows:mine', file: linear.pt, data: $t}\n"
        "    observe: {t: {evaluate.accuracy: {data: $t}}}\n"
    )
    assert "pass --trust my_rows" in run(recipe).err
    assert "runs/x" not in run(recipe, "--trust", "my_rows", code=0).out
    assert re.search(r"mapsto run \S+ --plan .*--trust my_rows", run(recipe, "--trust", "my_rows", code=0).out)


def test_checkpoints_that_do_not_fit_or_are_bombs() -> None:
    tensors = torch.nn.Linear(3, 2).state_dict()
    torch.save(tensors, "linear.pt")
    text = checkpoint(f"{CONV4}, file: linear.pt")
    assert "step 1, networks.checkpoint" in text
    assert "missing: features.0.0.weight, features.0.1.bias" in text
    assert "unknown: bias, weight" in text
    text = checkpoint(
        "factory: 'torch.nn:Linear', arguments: {in_features: 4, out_features: 2}, file: linear.pt", "--trust", "torch"
    )
    assert "misshapen: weight is (2, 3), expected (2, 4)" in text
    Path("raw.pt").write_bytes(pickle.dumps({"weight": Bomb()}))
    torch.save({"state_dict": {"weight": Bomb()}}, "zipped.pt")
    for name in ("raw", "zipped"):
        assert "refused: it holds code or objects besides tensors" in checkpoint(f"{CONV4}, file: {name}.pt")
    whole = Path("linear.pt").read_bytes()
    for name, content in {"half": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}.items():
        Path(f"{name}.pt").write_bytes(content)
        assert "not a whole checkpoint: " in checkpoint(f"{CONV4}, file: {name}.pt")
    Path("text.safetensors").write_text("hello")
    assert "not a whole safetensors file" in checkpoint(f"{CONV4}, file: text.safetensors")
    torch.save([1], "list.pt")
    assert "it holds a list, not tensors by name" in checkpoint(f"{CONV4}, file: list.pt")
    torch.save({1: torch.zeros(1)}, "numbered.pt")
    assert "unknown: 1" in checkpoint(f"{CONV4}, file: numbered.pt")
    assert "the checkpoint is missing" in checkpoint(f"{CONV4}, file: nowhere.pt")
    assert not Path("fired").exists()


@pytest.mark.parametrize(
    ("factory", "arguments", "message"),
    [
        ("os:system", "command: touch fired", "pass --trust os"),
        ("mapsto.cli:os.system", "command: touch fired", "not on the list of trusted modules"),
        ("mapsto.nn.networks.conv4:nn.Linear", "", "not on the list of trusted modules"),
        ("mapsto.nn.networks.conv4:conv4_blocks", "", "no such factory"),
        ("mapsto.nn.networks.conv4:annotations", "", "no factory of mapsto"),
        ("mapsto.nn.networks.nowhere:x", "", "no such factory"),
        ("mapsto.nn.networks.conv4:conv4", "sise: 3", "unexpected keyword argument 'sise'"),
        ("torch.nn:Linear", "in_features: 1, out_features: 1", "pass --trust torch"),
        ("torch.nn.Linear", "", "field 'factory'"),
    ],
)
def test_factories(factory: str, arguments: str, message: str) -> None:
    torch.save(torch.nn.Linear(3, 2).state_dict(), "linear.pt")
    assert message in checkpoint(f"factory: '{factory}', arguments: {{{arguments}}}, file: linear.pt")
    assert not Path("fired").exists()


# ------------------------------------------------------------------------------------------------------------ inside steps

TASKS = "  tasks: {{episodes: {{data: $d, ways: {}, shots: {}, queries: 2}}}}\n"
BAD_STEPS: dict[str, tuple[str, str]] = {
    "more classes than the network": (
        DATA + NET + TRAIN + "  - evaluate.accuracy: {data: $three}",
        "step 3, evaluate.accuracy: evaluate.accuracy: the network has 10 outputs, but the data has 3 classes",
    ),
    "an embedding for a classifier": (DATA + NET + "  - evaluate.accuracy: {data: $d}", "adapt it first"),
    "a teacher of other classes": (
        DATA + NET + TRAIN + "  - distill.logits: {teacher: $t, data: $three, epochs: 1}",
        "step 3, distill.logits: distill.logits: teacher: the teacher has the classes 0, 1, 2, 3, 4, …",
    ),
    "too many ways": (DATA + TASKS.format(50, 1) + NET + "  - meta.protonet: {tasks: $tasks}", "step 2, meta.protonet"),
    "too many shots": (DATA + TASKS.format(5, 50) + NET + "  - meta.protonet: {tasks: $tasks}", "50"),
    "divergence": (
        DATA + NET + "  - train.supervised: {data: $d, learning_rate: 1e38, epochs: 3, optimizer: sgd}",
        "step 2, train.supervised: training diverged at step 1",
    ),
    "a budget out of reach": (
        DATA + NET + TRAIN + "  - prune.magnitude: {macs: 0.001}",
        "the budget macs = 0.001 is out of reach: the smallest is",
    ),
    "a class that is not there": (
        DATA.replace("'2'", "zz") + NET + "  - train.supervised: {data: $three}",
        "the data has no class 'zz'",
    ),
    "an empty split": (DATA.replace("per_class: 4", "per_class: 9999") + NET + TRAIN, "lower per_class"),
    "too small an image": (HEAD + "  - networks.conv4: {size: 8}", "step 1, networks.conv4: conv4: size is 8"),
    "beyond memory": (HEAD + f"  - networks.conv4: {{width: {10**15}}}", "out of memory; lower batch_size"),
}


@pytest.mark.usefixtures("with_shared")
@pytest.mark.parametrize("case", BAD_STEPS)
def test_a_step_that_cannot_be_done(case: str, shared: Path) -> None:
    text, message = BAD_STEPS[case]
    done = run(text)
    assert message in done.err
    assert "error: step " in done.err
    nothing_half_written("out")
    assert not list((shared / "leases").glob("*"))


def test_our_own_fault_is_told_from_the_users(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made / "store", "store")

    def fault(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(Size, "apply", fault)
    Path("x.yaml").write_text(GOOD)
    with (
        pytest.raises(SystemExit) as ended,
        redirect_stderr(io.StringIO()) as err,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", ["mapsto", "run", "x.yaml", "--threads", "1", "--force", "size"])
        cli.main()
    assert ended.value.code == 1
    text = " ".join(err.getvalue().split())
    assert "step 3, evaluate.size (size): ZeroDivisionError: division by zero" in text
    assert "MAPSTO_DEBUG=1" in text
    monkeypatch.setattr("mapsto.cli.catalog.recipes", fault)
    mapsto("list", code=1)


# ------------------------------------------------------------------------------------------------------------------- store


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


class Damage:
    """A copy of the good store with one thing in it changed, and all that rests on the trained network forgotten."""

    def __init__(self, made: Path) -> None:
        shutil.copytree(made / "store", "store")
        self.root = Path("store")
        self.keys = {json.loads(p.read_text())["name"]: p for p in self.root.glob("keys/*/*.json")}
        self.record = self.keys["train.supervised"]
        for name in ("evaluate.size", "export.onnx"):
            self.keys[name].unlink()

    @property
    def artifact(self) -> Path:
        digest = json.loads(self.record.read_text())["digest"]
        return self.root / "artifacts" / digest[:2] / f"{digest}.json"

    @property
    def blob(self) -> Path:
        digest = next(iter(json.loads(self.artifact.read_text())["tensors"].values()))
        return self.root / "blobs" / digest[:2] / digest

    def forge(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Another network under its right digest, as another version or an attacker would write it."""
        tree = json.loads(self.artifact.read_text())
        form = tree.pop("format")
        change(tree)
        digest = digest_json(tree)
        path = self.root / "artifacts" / digest[:2] / f"{digest}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(dumps({"format": form, **tree}))
        changed(self.record, lambda record: record.update(digest=digest))


LATER: dict[str, tuple[Callable[[Damage], object], str]] = {
    "store": (lambda d: (d.root / "FORMAT").write_text('{"format": 99}'), "format 99 was written by a later mapsto"),
    "store's format": (lambda d: (d.root / "FORMAT").write_text("junk"), "its FORMAT file cannot be read"),
    "record": (
        lambda d: changed(d.record, lambda t: t.update(format=99)),
        "a record has format 99; this mapsto knows 1",
    ),
    "record of junk": (
        lambda d: d.record.write_text("junk"),
        "a record is damaged; delete that file: its step runs again",
    ),
    "record of a list": (lambda d: d.record.write_text("[]"), "a record is damaged"),
    "record of another digest": (
        lambda d: changed(d.record, lambda t: t.update(digest="../../x")),
        "a record is damaged",
    ),
    "record of a number": (lambda d: changed(d.record, lambda t: t.update(digest=3)), "a record is damaged"),
    "artifact": (lambda d: changed(d.artifact, lambda t: t.update(format=99)), "an artifact has format 99"),
    "artifact of junk": (lambda d: d.artifact.write_text("junk"), "a manifest is damaged"),
    "artifact of another format": (
        lambda d: changed(d.artifact, lambda t: t.update(format=[])),
        "a manifest is damaged",
    ),
    "artifact gone": (lambda d: d.artifact.unlink(), "an artifact is missing"),
    "edit": (
        lambda d: d.forge(lambda t: t["edits"].append({"name": "head", "version": 99, "fields": {}})),
        "edit 'head' has version 99, this mapsto knows 1; upgrade mapsto",
    ),
    "edit unknown": (
        lambda d: d.forge(lambda t: t["edits"].append({"name": "hed", "version": 1, "fields": {}})),
        "did you mean 'head'?",
    ),
    "edit broken": (lambda d: d.forge(lambda t: t["edits"].append({"name": "head"})), "version: field required"),
    "kind": (lambda d: d.forge(lambda t: t.update(kind="Zork")), "an artifact of unknown kind 'Zork'; upgrade mapsto"),
    "signature": (lambda d: d.forge(lambda t: t.pop("signature")), "signature: field required"),
    "factory of others": (
        lambda d: d.forge(lambda t: t["arch"].update(name="os:system", arguments={"command": "touch fired"})),
        "pass --trust os",
    ),
    "factory through mapsto": (
        lambda d: d.forge(
            lambda t: t["arch"].update(name="mapsto.cli:os.system", arguments={"command": "touch fired"})
        ),
        "not on the list of trusted modules",
    ),
    "tensor gone": (lambda d: d.forge(lambda t: t["tensors"].popitem()), "the tensors do not fit the network (missing"),
}


@pytest.mark.parametrize("case", LATER)
def test_a_store_of_a_later_version_or_damaged(case: str, made: Path) -> None:
    damage = Damage(made)
    change, message = LATER[case]
    change(damage)
    assert message in run(GOOD).err
    nothing_half_written()
    assert not Path("fired").exists()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda path: path.unlink(), "a blob is missing"),
        (lambda path: path.write_bytes(b""), "a blob is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x7f"), "a blob is damaged"),
    ],
)
def test_a_damaged_blob_is_found_and_mended(change: Callable[[Path], object], what: str, made: Path) -> None:
    damage = Damage(made)
    path = damage.blob
    change(path)
    found = mapsto("store", "verify")
    assert what in found.out
    assert path.name in found.out
    done = run(GOOD)
    assert what in done.err
    assert path.name in done.err
    assert "tensor classifier.bias" in done.err
    assert "--force" in done.err
    nothing_half_written()
    run(GOOD, "--force", "t", code=0)
    assert "every artifact matches its digest" in mapsto("store", "verify", code=0).out
    mended = json.loads(Path("out/report.json").read_text())["steps"]
    whole = json.loads((made / "out/report.json").read_text())["steps"]
    assert [step["digest"] for step in mended] == [step["digest"] for step in whole]


def test_a_damaged_index_and_runs_file(made: Path) -> None:
    shutil.copytree(made / "store", "store")
    Path("store/index.sqlite").write_bytes(b"junk" * 100)
    assert " makes it again" in run(GOOD).err
    nothing_half_written()
    Path("store/index.sqlite").unlink()
    next(Path("store/runs").glob("*.json")).write_text("junk")
    assert "a run's file is damaged" in mapsto("store", "index").err


# ------------------------------------------------------------------------------------------------------- predict and report


@pytest.fixture
def package(made: Path) -> Path:
    return Path(shutil.copytree(made / "out/package", "package"))


@pytest.fixture
def picture() -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20), np.uint8)).save("digit.png")
    return Path("digit.png")


def test_inputs_that_cannot_be_predicted(package: Path, picture: Path) -> None:
    files: dict[str, tuple[bytes, str]] = {
        "half.png": (picture.read_bytes()[:150], "half.png: a broken or truncated image"),
        "empty.png": (b"", "empty.png: it is empty"),
        "text.png": (b"hello", "text.png: neither an image nor an array"),
        "empty.csv": (b"", "empty.csv: it is empty"),
        "huge.png": (huge_png(), "huge.png: has more than 100 megapixels"),
        "junk.npz": (b"PK\x03\x04junk", "junk.npz: not a plain NumPy array"),
    }
    for name, (content, message) in files.items():
        Path(name).write_bytes(content)
        assert message in mapsto("predict", package, name).err
    image = np.zeros((16, 16))
    arrays: dict[str, tuple[Any, str]] = {
        "wrong": (np.zeros((3, 4, 5, 6, 7)), "has shape (3, 4, 5, 6, 7)"),
        "channels": (np.zeros((2, 5, 16, 16)), "an image is (H, W), (H, W, C) or (C, H, W)"),
        "nan": (image * np.nan, "holds NaN or infinity"),
        "negative": (image - 3, "values must be 0 to 255, or 0 to 1"),
        "none": (np.zeros((0, 16, 16)), "is no image"),
        "words": (np.array([["a"]]), "give numbers"),
        "complex": (image.astype(complex), "give numbers"),
        "objects": (np.array([Bomb()]), "not a plain NumPy array"),
    }
    for name, (array, message) in arrays.items():
        np.save(f"{name}.npy", array, allow_pickle=True)
        assert message in mapsto("predict", package, f"{name}.npy").err
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 99999), }".ljust(117) + b"\n"
    Path("vast.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + header)
    assert "vast.npy: not a plain NumPy array" in mapsto("predict", package, "vast.npy").err
    assert "nowhere.png: cannot be read (No such file or directory)" in mapsto("predict", package, "nowhere.png").err
    assert "neither an image nor an array" in mapsto("predict", package, package).err
    assert "it is empty" in mapsto("predict", package, "-").err
    both = mapsto("predict", package, picture, "nowhere.png", "--json")
    assert len(json.loads(both.out)) == 1, "one bad file does not lose the others' answers"
    assert "nowhere.png" in both.err
    assert not Path("fired").exists()


def test_tables_that_cannot_be_predicted(package: Path) -> None:
    changed(package / "manifest.json", lambda t: t["signature"]["preprocessing"].update(kind="none"))
    for text, message in {
        "1,2,nan\n": "holds NaN or infinity",
        "1,2,3\n": "has shape (1, 3)",
        "1,x\n2,y\n": "is no number",
        "1,2\n3\n": "1 cell where the first row has 2",
        "a,b\n": "holds no rows of numbers",
    }.items():
        Path("t.csv").write_text(text)
        assert message in mapsto("predict", package, "t.csv").err


def signed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    return lambda folder: changed(folder / "manifest.json", lambda tree: change(tree["signature"]))


def manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    return lambda folder: changed(folder / "manifest.json", change)


def not_onnx(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"junk")
    digest = hashlib.sha256(b"junk").hexdigest()
    changed(folder / "manifest.json", lambda tree: tree["files"]["model.onnx"].update(sha256=digest))


def flipped(folder: Path) -> None:
    data = bytearray((folder / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx").write_bytes(data)


BAD_PACKAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed byte": (flipped, "'model.onnx' is not the file that was exported"),
    "a file gone": (lambda p: (p / "model.onnx").unlink(), "'model.onnx' cannot be read"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "there is no manifest.json"),
    "junk": (lambda p: (p / "manifest.json").write_text("junk"), "not a package's manifest"),
    "a list": (lambda p: (p / "manifest.json").write_text("[]"), "not a package's manifest"),
    "files a number": (manifest(lambda t: t.update(files=3)), "not a package's manifest"),
    "files of numbers": (manifest(lambda t: t.update(files={"a": 3})), "not a package's manifest"),
    "later": (manifest(lambda t: t.update(format=99)), "the package has format 99, this mapsto reads up to 5; upgrade"),
    "format a word": (manifest(lambda t: t.update(format="x")), "not a package's manifest"),
    "outside": (manifest(lambda t: t["files"].update({"../x": {"sha256": "0"}})), "'../x', outside the package"),
    "absolute": (manifest(lambda t: t["files"].update({"/etc/passwd": {"sha256": "0"}})), "outside the package"),
    "model outside": (manifest(lambda t: t.update(model="../x")), "the manifest names no model"),
    "model a list": (manifest(lambda t: t.update(model=["x"])), "the manifest names no model"),
    "no signature": (manifest(lambda t: t.pop("signature")), "signature is missing"),
    "no inputs": (signed(lambda s: s.update(inputs=[])), "signature.inputs is empty"),
    "preprocessing a number": (
        signed(lambda s: s.update(preprocessing=3)),
        "signature.preprocessing is of another kind",
    ),
    "unknown preprocessing": (signed(lambda s: s["preprocessing"].update(zork=3)), "preprocessing.zork is not known"),
    "other classes": (signed(lambda s: s.update(classes=["a"])), "for 1 classes"),
    "no classes": (signed(lambda s: s.update(classes=None)), "gives embeddings, not classes"),
    "another input": (
        signed(lambda s: s["inputs"][0].update(name="zork")),
        "its inputs are called input, and its signature says zork",
    ),
    "another size": (signed(lambda s: s["preprocessing"].update(size=[4, 4])), "and images become (1, 4, 4)"),
    "not ONNX": (not_onnx, "is no whole ONNX file"),
}


@pytest.mark.parametrize("case", BAD_PACKAGES)
def test_a_package_that_cannot_be_trusted(case: str, package: Path, picture: Path) -> None:
    change, message = BAD_PACKAGES[case]
    change(package)
    assert message in mapsto("predict", package, picture).err


def test_a_file_too_many_in_a_package_is_never_read(package: Path, picture: Path) -> None:
    whole = mapsto("predict", package, picture, "--json", code=0).out
    (package / "extra.onnx").write_bytes(b"junk")
    assert mapsto("predict", package, picture, "--json", code=0).out == whole


def test_reports_that_are_none(made: Path) -> None:
    Path("r").mkdir()
    whole = json.loads((made / "out/report.json").read_text())
    broken = {
        name: json.dumps({k: v for k, v in whole.items() if k != name}) for name in ("steps", "summary", "targets")
    }
    for text, message in {
        "": "not a report",
        "junk": "not a report",
        "[]": "it holds a list",
        "null": "it holds a NoneType",
        '{"schema": 2}': "written by a later mapsto; upgrade mapsto",
        '{"schema": 1, "steps": 3}': "it lacks name",
        json.dumps(whole)[:200]: "not a report",
        **{text: f"it lacks {name}" for name, text in broken.items()},
    }.items():
        Path("r/report.json").write_text(text)
        for arguments in (("r",), ("r", made / "out"), ("r", "--json")):
            assert message in mapsto("report", *arguments).err
    assert "one is shown, two are compared" in mapsto("report", "r", "r", "r").err


# --------------------------------------------------------------------------------------------- full disks, Ctrl-C, two at once


@pytest.mark.parametrize("name", ["report.json", "report.html", "recipe.yaml", "manifest.json", "model.onnx"])
def test_a_disk_that_is_full_when_results_are_written(name: str, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made / "store", "store")
    write = reports.write_atomically

    def full(target: Path, data: bytes, *, durable: bool = False) -> None:
        if target.name == name:
            raise disk_error(OSError(errno.ENOSPC, "No space left on device", str(target)), target)
        write(target, data, durable=durable)

    with monkeypatch.context() as patch:
        patch.setattr(reports, "write_atomically", full)
        done = run(GOOD)
    assert f"the disk is full: {name} could not be written" in done.err
    assert "then run the same command again" in done.err
    assert not list(Path("out").rglob("*.tmp"))
    assert not Path("out", name).exists()
    assert not Path("out/package").exists()
    run(GOOD, code=0)
    assert Path("out/package/manifest.json").is_file()


def test_a_package_that_is_there_stays_when_the_disk_is_full(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made / "store", "store")
    shutil.copytree(made / "out", "out")
    before = {p.name: p.read_bytes() for p in Path("out/package").iterdir()}

    rename = Path.rename

    def full(source: Path, target: Path) -> Path:
        if target.name == "package" and ".old." not in source.name:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", full)
    assert "the disk is full" in run(GOOD).err
    assert {p.name: p.read_bytes() for p in Path("out/package").iterdir()} == before
    assert not list(Path("out").rglob("*.tmp"))


def test_ctrl_c_within_a_step(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made / "store", "store")
    for path in Path("store").glob("keys/*/*.json"):
        if json.loads(path.read_text())["name"] == "export.onnx":
            path.unlink()

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Onnx, "apply", stopped)
        assert "the same command goes on from here" in run(GOOD, code=130).err
    nothing_half_written()
    assert not list(Path("store/leases").glob("*"))
    run(GOOD, code=0)


def start(*arguments: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"MAPSTO_CHECKPOINT_SECONDS": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mapsto", "run", *arguments, "--threads", "1"]
    # in a shell's background it is ignored, and a child would ignore it too
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_a_real_ctrl_c_after_which_the_same_command_goes_on() -> None:
    long = DATA + NET + "  - train.supervised: {data: $d, epochs: 100000, batch_size: 8}\n    as: t\n"
    Path("long.yaml").write_text(long)
    log = Path("out/logs/02-t/metrics.csv")
    for again in (False, True):
        log.unlink(missing_ok=True)
        stopped = start("long.yaml", "--out", "out")
        began = time.monotonic()
        while time.monotonic() - began < 240 and not (log.exists() and log.stat().st_size > 300):
            time.sleep(0.05)
        stopped.send_signal(signal.SIGINT)
        _, err = stopped.communicate(timeout=300)
        assert stopped.returncode == 130, err.decode()
        assert b"the same command goes on from here" in err
        assert (b"goes on from item" in err) is again
        assert b"Traceback" not in err
        assert not list(Path("store/leases").glob("*"))
        nothing_half_written()


@pytest.mark.slow
def test_two_runs_at_once_into_one_folder() -> None:
    Path("a.yaml").write_text(GOOD)
    Path("b.yaml").write_text(GOOD.replace("epochs: 1", "epochs: 2"))
    both = [start(name, "--out", "both") for name in ("a.yaml", "b.yaml")]
    for one in both:
        _, err = one.communicate(timeout=300)
        assert one.returncode == 0, err.decode()
    assert json.loads(Path("both/report.json").read_text())["name"] in ("a", "b")
    assert {path.name for path in Path("both/package").iterdir()} == {"manifest.json", "model.onnx", "run.py"}
    assert not list(Path("both").rglob("*.tmp"))
