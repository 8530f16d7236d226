"""`mapsto-runtime` is a distribution of its own: it needs what it declares, and answers as mapsto does."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.command import mapsto
from tests.nets import Plain, network
from tests.runtime.test_predict import unpacked
from torch import nn

import mapsto_runtime
from mapsto.kinds import Network, Preprocessing, trusting
from mapsto.mappings.export.onnx import Onnx
from mapsto.nn.network.preprocess import prepare
from mapsto_runtime import runtimes
from mapsto_runtime.__main__ import main
from mapsto_runtime.errors import MissingExtra
from mapsto_runtime.signature import Column

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "runtime"
COLUMNS = (
    Column(name="colour", type="words", categories=("blue", "red")),
    Column(name="size", mean=3.0, std=2.0, fill=(3.0,)),
)
ROWS = "colour;size\nred;6,5\nblue;\n"


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages of images and of a table, and what to ask them."""
    root = tmp_path_factory.mktemp("runtime")
    with trusting("tests", "torch"):
        unpacked(Onnx(samples=4)(network(Plain)), root / "images")
        table = Network.from_module(nn.Linear(3, 2), torch.zeros(2, 3), classes=("cold", "warm"))
        tensors = {"weight": torch.tensor([[2.0, 0, 0], [0, 2, 1]]), "bias": torch.zeros(2)}
        read = Preprocessing(kind="none", columns=COLUMNS, header=("colour", "size"))
        signature = dataclasses.replace(table.signature, preprocessing=read)
        unpacked(Onnx(samples=4)(dataclasses.replace(table, tensors=tensors, signature=signature)), root / "table")
    pixels = np.full((40, 30), 250, np.uint8)
    pixels[10:20, 12:18] = 20
    Image.fromarray(pixels).save(root / "picture.png")
    (root / "rows.csv").write_text(ROWS, encoding="utf-8")
    return root


# ----------------------------------------------------------------------------------------------------- the two distributions


def test_both_have_one_version_and_one_licence() -> None:
    assert project(ROOT)["dynamic"] == project(RUNTIME)["dynamic"] == ["version"]
    assert f"mapsto-runtime=={mapsto_runtime.__version__}" in project(ROOT)["dependencies"]
    assert project(ROOT)["requires-python"] == project(RUNTIME)["requires-python"]
    assert (ROOT / "LICENSE").read_bytes() == (RUNTIME / "LICENSE").read_bytes()


def test_what_both_need_they_need_in_one_version() -> None:
    own, whole = project(RUNTIME), project(ROOT)
    extras = own["optional-dependencies"]
    assert set(own["dependencies"]) | set(extras.pop("parquet")) <= set(whole["dependencies"])
    assert set(extras.pop("text")) <= set(whole["optional-dependencies"]["text"])
    assert set(extras.pop("sign")) == set(whole["optional-dependencies"]["sign"])
    assert sorted(need for needs in extras.values() for need in needs) == sorted(whole["optional-dependencies"]["edge"])


LIMITED = """
import importlib, sys

class Limit:
    def find_spec(self, name, *_):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, *ALLOWED}:
            raise ModuleNotFoundError(f"{name} is in no dependency", name=name)

sys.meta_path.insert(0, Limit())
from mapsto_runtime.predictor import Predictor
for name in NAMES:
    importlib.import_module(name)
for package, asked in ASKED:
    print([answer.label for answer in Predictor(package).predict([asked])])
"""
DECLARED = ("mapsto_runtime", "numpy", "onnxruntime", "PIL", "flatbuffers", "google", "packaging")
"""The packages of what `runtime/pyproject.toml` names, and of what ONNX Runtime needs."""


def test_it_imports_nothing_but_what_it_declares(place: Path) -> None:
    root = Path(mapsto_runtime.__file__).parent
    files = [path.relative_to(root.parent).with_suffix("").parts for path in root.rglob("*.py")]
    names = [".".join(parts).removesuffix(".__init__") for parts in files]
    asked = [
        (str(place / "images"), str(place / "picture.png")),
        (str(place / "table"), str(place / "rows.csv")),
    ]
    script = f"ALLOWED, NAMES, ASKED = {DECLARED!r}, {names!r}, {asked!r}\n{LIMITED}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    image, table = done.stdout.splitlines()
    assert re.fullmatch(r"\['[abcde]'\]", image)
    assert table == "['warm', 'cold']"
    assert "mapsto_runtime.preprocessing.images" in names


@pytest.mark.parametrize(
    ("runtime", "absent"),
    [("openvino", "openvino"), ("litert", "ai_edge_litert"), ("executorch", "executorch"), ("executorch", "torch")],
)
def test_a_runtime_that_is_not_there_is_named_with_what_installs_it(
    runtime: str, absent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [absent, *(name for name in sys.modules if name.startswith(f"{absent}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=re.escape(f"pip install 'mapsto-runtime[{runtime}]'")):
        runtimes.find(runtime).load({})


# ---------------------------------------------------------------------------------------------------------- the command line


def predicted(*arguments: object, code: int = 0) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([str(each) for each in arguments])
    assert ended.value.code == code, err.getvalue()
    return out.getvalue(), err.getvalue()


def questions(place: Path) -> Iterator[tuple[Path, Path]]:
    yield place / "images", place / "picture.png"
    yield place / "table", place / "rows.csv"


def test_its_command_says_what_mapsto_says(place: Path) -> None:
    for package, asked in questions(place):
        for more in ([], ["--json"], ["--json", "--top", "1"], ["--explain"], ["--explain", "--json"]):
            assert predicted(package, asked, *more)[0] == mapsto("predict", package, asked, *more, code=0).out


def test_a_file_that_cannot_be_used_does_not_cost_the_others_their_answers(place: Path) -> None:
    out, err = predicted(place / "images", "nowhere.png", place / "picture.png", code=2)
    assert out.startswith(f"{place / 'picture.png'}: ")
    assert err.startswith("mapsto-predict: error: nowhere.png: cannot be read")
    assert "no manifest.json" in predicted(place / "nowhere", "x.png", code=2)[1]
    assert "'0' is no number from 1 up" in predicted(place / "images", "x.png", "--top", "0", code=2)[1]


# ----------------------------------------------------------------------------------------------------- a fresh environment


def size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_predicts_alone_in_a_fresh_environment(place: Path, tmp_path: Path, capsys: Any) -> None:
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words: object) -> str:
        done = subprocess.run([*map(str, words)], cwd=tmp_path, env=alone, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-w", tmp_path, RUNTIME)
    (wheel,) = tmp_path.glob("mapsto_runtime-*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    (packages,) = (tmp_path / "venv").rglob("site-packages")
    before = size_mb(packages)
    python = next(path for path in (tmp_path / "venv").glob("*/python*") if path.stem == "python")
    run(python, "-m", "pip", "install", "--no-compile", "-c", ROOT / "constraints.txt", wheel)
    size = size_mb(packages) - before
    with capsys.disabled():
        sys.stdout.write(f"\nmapsto-runtime with all that it needs: {size:.0f} MB\n")
    assert size < 300, "torch alone is 757 MB"

    absent = "import importlib.util as u; print([name for name in ('torch', 'mapsto') if u.find_spec(name)])"
    assert run(python, "-c", absent) == "[]\n"
    for package, asked in questions(place):
        found = json.loads(run(python, "-m", "mapsto_runtime", package, asked, "--json"))
        assert found == json.loads(mapsto("predict", package, asked, "--json", code=0).out)
    assert [row["label"] for row in found] == ["warm", "cold"]
    (row,) = json.loads(run(python.with_name("mapsto-predict"), place / "images", place / "picture.png", "--json"))
    with trusting("tests"):
        given = network(Plain)
        inverted = 255 - np.asarray(Image.open(place / "picture.png"))
        scores = given.module()(prepare(inverted[None, None], given.signature.preprocessing)).softmax(1)[0].detach()
    assert row["label"] == "abcde"[int(scores.argmax())]
    assert row["probability"] == pytest.approx(float(scores.max()), abs=1e-3)
