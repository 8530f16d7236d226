"""The runner that a package carries: copied elsewhere and run by an interpreter that has no mapsto, it answers as mapsto does."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.nets import Blobs, Plain, network
from torch import nn

from mapsto import online, streams
from mapsto.kinds import Adaptation, Column, Network, Package, Preprocessing, trusting
from mapsto.mappings.export.executorch import Executorch
from mapsto.mappings.export.litert import Litert
from mapsto.mappings.export.onnx import Onnx
from mapsto.mappings.export.openvino import Openvino
from mapsto.mappings.quantize.static import Static
from mapsto.nn.export.runner import RUNNER, head_rule, runner_files
from mapsto.nn.export.runners import read_table
from mapsto.nn.export.runners.adapting import head_of
from mapsto.nn.meta.adaptation.ridge import first_tensors
from mapsto.nn.meta.adaptation_methods import linear_method
from mapsto.report.build import save_package
from mapsto_runtime.errors import TrustError
from mapsto_runtime.predictor import Predictor

pytestmark = pytest.mark.usefixtures("trusted", "one_thread")

RUNTIMES = (
    pytest.param(Onnx, (), 1e-5, id="onnx"),
    pytest.param(Openvino, ("openvino",), 1e-5, id="openvino"),
    pytest.param(Litert, ("litert_torch", "ai_edge_litert"), 1e-5, id="litert", marks=pytest.mark.slow),
)
"""Exporter, the modules that it needs, and the tolerance of a probability."""
LEARNERS = (
    Adaptation(method="centroid", settings={"scale": 0.5}),
    Adaptation(method="centroid", settings={"scale": 10.0, "distance": "cosine"}),
    Adaptation(method="ridge", tensors=first_tensors(penalty=0.3, scale=4.0)),
)


def needs(*modules: str) -> None:
    for name in modules:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs the extra edge: {name}")


@pytest.fixture(scope="module")
def classifier() -> Package:
    with trusting("tests"):
        return Onnx(samples=4)(network(Plain))


def copied(package: Package, folder: Path) -> Path:
    """The package where nothing of the checkout is."""
    save_package(package, folder)
    return folder


def run(package: Path, *arguments: Any, fails: bool = False) -> str:
    """What the runner writes, run by a fresh interpreter without this one's paths that refuses to import mapsto or torch."""
    barred = "".join(f"sys.modules[{name!r}] = None\n" for name in ("mapsto", "mapsto_runtime", "torch", "onnx"))
    script = f"import runpy, sys\n{barred}sys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    command = [sys.executable, "-I", "-c", script, str(package / RUNNER), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=package.parent, timeout=120)
    assert bool(done.returncode) is fails, done.stderr
    return done.stderr if fails else done.stdout


def answers(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def pictures(folder: Path) -> dict[str, list[Path]]:
    """Files in folders a class, grey and with transparency, of other sizes than the network's: a dark bar whose place is the class's."""
    random = np.random.default_rng(0)
    found: dict[str, list[Path]] = {}
    for number in range(12):
        name = "abc"[number % 3]
        path = folder / name / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(190, 255, (20 + number, 24)).astype(np.uint8)
        pixels[4 + 5 * (number % 3) :][:5, 3:20] = 20
        image = Image.fromarray(pixels)
        (image.convert("RGBA") if number % 4 == 0 else image).save(path)
        found.setdefault(name, []).append(path)
    return found


def agrees(given: list[dict[str, Any]], expected: list[Any], limit: float) -> None:
    assert [row["label"] for row in given] == [prediction.label for prediction in expected]
    for row, prediction in zip(given, expected, strict=True):
        assert set(row["scores"]) == set(prediction.scores)
        for name, score in row["scores"].items():
            assert score == pytest.approx(prediction.scores[name], abs=limit)


@pytest.mark.parametrize(("exporter", "modules", "limit"), RUNTIMES)
def test_it_answers_images_as_mapsto_does(exporter, modules, limit, classifier, tmp_path):
    needs(*modules)
    package = classifier if exporter is Onnx else exporter(samples=4)(network(Plain))
    folder = copied(package, tmp_path / "package")
    files = [path for paths in pictures(tmp_path / "photos").values() for path in paths]
    agrees(answers(run(folder, "predict", *files)), Predictor(folder).predict(files), limit)


@pytest.mark.parametrize(("exporter", "modules", "limit"), RUNTIMES)
@pytest.mark.parametrize(
    "learner",
    [pytest.param(LEARNERS[0], id="prototype", marks=pytest.mark.slow), pytest.param(LEARNERS[2], id="ridge")],
)
def test_it_adapts_as_mapsto_does(exporter, modules, limit, learner, tmp_path):
    needs(*modules)
    given = dataclasses.replace(network(Plain, classes=0), adaptation=learner)
    folder = copied(exporter(samples=4)(given), tmp_path / "package")
    photos = pictures(tmp_path / "photos")
    queries = [path for paths in photos.values() for path in paths[2:]]
    assert "run adapt first" in run(folder, "predict", *queries, fails=True)
    for name, paths in photos.items():
        for path in paths[:2]:
            (tmp_path / "examples" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / "examples" / name)
    run(folder, "adapt", tmp_path / "examples")
    head = tmp_path / "package.head.json"
    assert head.is_file(), "beside the package"
    support = [(path, name) for name, paths in photos.items() for path in paths[:2]]
    adapted = Predictor(folder).adapt([path for path, _ in support], [name for _, name in support])
    found = answers(run(folder, "predict", *queries))
    agrees(found, adapted.predict(queries), 20 * limit)
    assert len({row["label"] for row in found}) > 1
    kept = json.loads(head.read_text())
    head.write_text(json.dumps({**kept, "model": "0" * 64}))
    assert "was made for another package" in run(folder, "predict", *queries, fails=True)


@pytest.mark.parametrize("learner", LEARNERS, ids=("prototype", "cosine", "ridge"))
@pytest.mark.parametrize("count", [6, 40])
def test_its_head_is_the_learners(learner, count):
    features = torch.randn(count, 12, generator=torch.Generator().manual_seed(1)) * 3
    labels = torch.arange(count) % 3
    method = linear_method(learner.method)
    assert method is not None
    weight, bias = method.head(features, labels, 3, learner)
    rule = head_rule(learner)
    assert rule is not None
    found = head_of(features.numpy(), np.eye(3)[labels.numpy()], rule)
    np.testing.assert_allclose(found[0], weight.numpy(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found[1], bias.numpy(), rtol=1e-3, atol=1e-5)


def test_other_learners_have_no_head_of_its():
    assert head_rule(Adaptation(method="cosine")) is None


def test_mapsto_never_runs_it(classifier, tmp_path):
    """A package is data: what stands in its runner is not executed by whoever opens it, and a runner that was changed is refused."""
    folder = copied(classifier, tmp_path / "package")
    trap = tmp_path / "it ran"
    content = f"open({str(trap)!r}, 'w').close()\n".encode()
    (folder / RUNNER).write_bytes(content)
    with pytest.raises(TrustError, match=r"'run.py' is not the file that was exported"):
        Predictor(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][RUNNER] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    Predictor(folder).predict([np.zeros((16, 16), np.uint8)])
    assert not trap.exists()


@pytest.fixture(scope="module")
def of_rows() -> Package:
    """A network of a table's rows: numbers with fills, with decimal commas and unfilled, words as one-hot and in one number."""
    columns = (
        Column(name="size", mean=3.0, std=2.0, fill=(4.0,), categories=("none",)),
        Column(name="price", decimal=",", fill=(2.5,)),
        Column(name="age"),
        Column(name="colour", type="words", categories=("blue", "red"), fill=(0.25, 0.75)),
        Column(
            name="kind", type="words", categories=("a", "b", "rest"), encode="ordinal", missing="marked", others=True
        ),
    )
    with trusting("torch"):
        given = Network.from_module(nn.Linear(6, 3), torch.zeros(2, 6), classes=("no", "yes", "maybe"))
    before = Preprocessing(kind="none", columns=columns, header=("label", *(column.name for column in columns)))
    given = dataclasses.replace(given, signature=dataclasses.replace(given.signature, preprocessing=before))
    with trusting("torch"):
        return Onnx(samples=4)(given)


ROWS = """\
kind; colour;size;age;price;label
a;red;1.5;3;1,5;x
b;blue;;4;2;y
other;"red";none;-1e1;NA;z

rest;green;2e0;+7;0,5;
"""


def test_it_answers_rows_as_mapsto_does(of_rows, tmp_path):
    folder = copied(of_rows, tmp_path / "package")
    (tmp_path / "rows.csv").write_text(ROWS)
    agrees(
        answers(run(folder, "predict", tmp_path / "rows.csv")), Predictor(folder).predict([tmp_path / "rows.csv"]), 1e-6
    )


@pytest.mark.parametrize(
    ("cell", "by", "said"),
    [
        ("1.5", "$1,200", r"column 'size' holds '\$1,200': write plain numbers, or ask mapsto-runtime"),
        (";3;", ";;", "column 'age' lacks a value in row 1"),
        ("age", "Age", "column 'age' is wanted once in the header"),
        ("a;red", "red", "as many cells in each row"),
    ],
)
def test_it_refuses_rows_that_take_guesses(of_rows, tmp_path, cell, by, said):
    path = tmp_path / "rows.csv"
    path.write_text(ROWS.replace(cell, by, 1))
    signature = of_rows.manifest()["signature"]
    with pytest.raises(ValueError, match=said):
        read_table.read(path, signature)


def test_it_answers_what_was_learnt_from_a_stream(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "size,colour,label\n" + "".join(f"{n % 9},{'abc'[n % 3]},{['no', 'yes'][n % 2]}\n" for n in range(60))
    )
    model = online.prototypes(stream=streams.csv(file=str(path), target="label"))(None)
    folder = copied(Onnx(samples=8)(model), tmp_path / "package")
    agrees(answers(run(folder, "predict", path)), Predictor(folder).predict([path]), 1e-6)


@pytest.mark.slow
def test_it_answers_texts_as_mapsto_does(tmp_path):
    pytest.importorskip("tokenizers", reason="needs the extra text: tokenizers")
    pytest.importorskip("transformers", reason="needs the extra text: transformers")
    from tests.text.packages import ROWS as TEXTS
    from tests.text.packages import HfText, adapted_package, write_table
    from tests.text.tiny_encoder import tiny_encoder

    texts = [text for text, _ in TEXTS]
    encoder = HfText(folder=str(tiny_encoder(tmp_path / "encoder")), length=12)()
    adapted_package(encoder, write_table(tmp_path / "rows.csv"), tmp_path / "package")
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    predictor = Predictor(tmp_path / "package")
    agrees(answers(run(tmp_path / "package", "predict", tmp_path / "texts.txt")), predictor.predict(texts), 1e-5)


@pytest.mark.slow
def test_it_answers_arrays_and_other_kinds_of_scores_as_mapsto_does(tmp_path):
    with trusting("torch"):
        given = Network.from_module(nn.Linear(4, 3), torch.zeros(2, 4), classes=("a", "b", "c"))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32) * 3
    np.save(tmp_path / "x.npy", x)
    for kind in ("labels", "values"):
        with trusting("torch"):
            package = Onnx(samples=4)(
                dataclasses.replace(given, signature=dataclasses.replace(given.signature, answers=kind))
            )
        folder = copied(package, tmp_path / kind)
        expected = Predictor(folder).predict([x])
        found = answers(run(folder, "predict", tmp_path / "x.npy"))
        for row, prediction in zip(found, expected, strict=True):
            assert row["scores"] == pytest.approx(prediction.scores, abs=1e-5)
            assert row["label"] == (prediction.label if kind == "labels" else None)
    np.save(tmp_path / "x.npy", np.full((2, 4), np.nan))
    assert "finite float32 samples of shape [4] are wanted" in run(folder, "predict", tmp_path / "x.npy", fails=True)


def test_a_runner_imports_what_its_first_line_names_alone(classifier, of_rows):
    for package in (classifier, of_rows):
        text = package.files[RUNNER].read_text()
        tree = ast.parse(text)
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {name for name in imported if name.startswith(("mapsto", "torch"))}
        assert imported - sys.stdlib_module_names - {"collections.abc"} <= {"numpy", "onnxruntime", "PIL"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ExecuTorch's runner, built once: it is the same in all packages."""
    needs("executorch")
    cmake = shutil.which("cmake", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    if cmake is None or shutil.which("c++") is None:
        pytest.skip("needs CMake 3.28 and a C++ compiler")
    version = re.search(
        r"(\d+)\.(\d+)", subprocess.run([cmake, "--version"], capture_output=True, text=True, check=True).stdout
    )
    assert version is not None
    if (int(version[1]), int(version[2])) < (3, 28):
        pytest.skip(f"needs CMake 3.28, as ExecuTorch's package does; there is {version[0]}")
    folder = tmp_path_factory.mktemp("cpp")
    for name, content in runner_files("executorch", network(Plain).signature).items():
        (folder / name).write_bytes(content)
    found = importlib.util.find_spec("executorch")
    assert found is not None
    (place,) = found.submodule_search_locations or ()
    for command in (
        ["-S", folder, "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={place}"],
        ["--build", folder / "build"],
    ):
        done = subprocess.run([cmake, *command], capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build" / "run"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classes", "int8", "prototype", "cosine", "ridge"])
def test_executorchs_runner_in_c_plus_plus_answers_and_adapts_as_mapsto_does(kind, built, tmp_path):
    """Within a grey level of resizing, hence the wider tolerance."""
    learners = dict(zip(("prototype", "cosine", "ridge"), LEARNERS, strict=True))
    given = network(Plain, classes=0 if kind in learners else 5)
    if kind in learners:
        given = dataclasses.replace(given, adaptation=learners[kind])
    if kind == "int8":
        given = Static(data=Blobs(), samples=64)(given)
    folder = copied(Executorch(samples=4)(given), tmp_path / "package")

    def runs(*arguments: Any, fails: bool = False) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([built, folder, *arguments], capture_output=True, text=True, check=False, timeout=120)
        assert bool(done.returncode) is fails, done.stderr
        return done

    files: list[Path] = []
    for paths in pictures(tmp_path / "photos").values():
        for number, path in enumerate(paths):
            to = tmp_path / "grey" / path.parent.name / f"{path.stem}.{'ppm' if number % 2 else 'pgm'}"
            to.parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).convert("RGB" if number % 2 else "L").save(to)
            files.append(to)
    expected: Any = Predictor(folder)
    if kind in learners:
        assert "it gives embeddings: run adapt first" in runs("predict", files[0], fails=True).stderr
        support = [path for path in files if path.stem < "06"]
        for path in support:
            (tmp_path / "examples" / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / "examples" / path.parent.name)
        runs("adapt", tmp_path / "examples")
        expected = expected.adapt(support, [path.parent.name for path in support])
    found = [json.loads(line) for line in runs("predict", *files).stdout.splitlines() if line.startswith("{")]
    agrees(found, expected.predict(files), 5e-3)
    (tmp_path / "broken.pgm").write_bytes(b"P5 20 20 255\n123")
    assert "the file is truncated" in runs("predict", tmp_path / "broken.pgm", fails=True).stderr
