"""The runner that a package carries: copied elsewhere and run by an interpreter that has no mapsto, it answers as mapsto does."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.nets import Plain, network

from mapsto.kinds import Adaptation, Package, trusting
from mapsto.mappings.export.litert import Litert
from mapsto.mappings.export.onnx import Onnx
from mapsto.mappings.export.openvino import Openvino
from mapsto.nn.export.runner import RUNNER, head_rule
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
