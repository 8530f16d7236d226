"""The card of a package: exact figures on packages whose answers are known, every kind of bad input, and a page that stands alone."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.browser import CHROMIUM, in_a_browser
from tests.cli.packages import (
    COLOURS,
    color_package,
    embedding_package,
    identity_package,
    table_package,
    word_package,
)
from tests.command import mapsto

from mapsto.cli.evaluate import episodes
from mapsto.report import card as cards
from mapsto_runtime.measurement import measured

SHADES = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def evaluate(*arguments: object, code: int = 0) -> Any:
    """The card, or where it fails what was said."""
    done = mapsto("evaluate", *arguments, "--no-speed", "--json", code=code)
    return json.loads(done.out) if code == 0 else done.err


def archive(path: Path, scores: Any, labels: Any, **more: Any) -> Path:
    np.savez(path, inputs=np.array(scores, np.float32), labels=np.array(labels), **more)
    return path


def photos(folder: Path, shown: dict[str, list[str]], size: int = 8) -> Path:
    """A folder of class folders; each class holds images of the colours named, all different."""
    number = 0
    for name, colours in shown.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for colour in colours:
            number += 1
            pixels = np.tile(np.array(SHADES[colour], np.uint8), (size, size, 1))
            pixels[0, 0] = number
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return color_package(tmp_path / "colours" / "package")


# ------------------------------------------------------------------------------------------------------------------ figures


def test_figures_of_classes_are_those_of_the_scores(tmp_path: Path) -> None:
    """Four answers at 80 %, of which three are right, and one at 90 % that is right."""
    four, nine = math.log(4), math.log(9)
    scores = [[four, 0], [four, 0], [0, four], [four, 0], [0, nine]]
    data = archive(tmp_path / "held.npz", scores, ["cat", "cat", "dog", "dog", "dog"])
    card = evaluate(identity_package(tmp_path / "pets" / "package", ("cat", "dog")), "--data", data)
    result = card["packages"][0]["results"]["held"]
    metrics, sure = result["metrics"], result["calibration"]["metrics"]
    assert metrics["accuracy"]["value"] == 80
    assert metrics["accuracy"]["n"] == 5
    assert (metrics["accuracy"]["low"], metrics["accuracy"]["high"]) == pytest.approx((37.55, 96.38), abs=0.01)
    assert metrics["balanced_accuracy"]["value"] == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert metrics["macro_f1"]["value"] == pytest.approx(80)
    assert metrics["most_frequent"]["value"] == 60
    assert result["confusion"]["rows"] == [["cat", 2, 0], ["dog", 1, 2]]
    assert result["per_class"]["rows"] == [["cat", 66.67, 100.0, 80.0, 2], ["dog", 100.0, 66.67, 80.0, 3]]
    assert sure["ece"]["value"] == pytest.approx(100 * (4 * abs(0.75 - 0.8) + abs(1 - 0.9)) / 5, abs=1e-3)
    assert sure["nll"]["value"] == pytest.approx(-(3 * math.log(0.8) + math.log(0.2) + math.log(0.9)) / 5, abs=1e-6)
    assert sure["brier"]["value"] == pytest.approx((3 * 2 * 0.2**2 + 2 * 0.8**2 + 2 * 0.1**2) / 5, abs=1e-6)
    (worst,) = result["worst"]
    assert (worst["source"], worst["label"], worst["answer"], worst["confidence"]) == ("sample 3", "dog", "cat", 0.8)


def test_figures_of_values(tmp_path: Path) -> None:
    table = tmp_path / "held.csv"
    table.write_text("a,b,label\n1,0,1\n2,0,3\n3,9,3\n", encoding="utf-8")
    card = evaluate(table_package(tmp_path / "price" / "package", values=True), "--data", table)
    metrics = card["packages"][0]["results"]["held"]["metrics"]
    assert metrics["rmse"]["value"] == pytest.approx(math.sqrt(1 / 3))
    assert metrics["mae"]["value"] == pytest.approx(1 / 3)
    assert metrics["r2"]["value"] == pytest.approx(1 - 1 / (8 / 3))
    worst = card["packages"][0]["results"]["held"]["worst"][0]
    assert worst["source"] == "row 2"
    assert worst["cells"] == {"a": "2", "b": "0"}
    assert card["data"][0]["target"] == "label", (
        "which the package knows, as the one column that it does not predict from"
    )


def test_figures_of_labels_that_stand_by_themselves(tmp_path: Path) -> None:
    data = archive(tmp_path / "held.npz", [[1, -1], [1, 1]], [[1.0, 0.0], [1.0, 0.0]])
    card = evaluate(identity_package(tmp_path / "tags" / "package", ("new", "sold"), answers="labels"), "--data", data)
    result = card["packages"][0]["results"]["held"]
    assert result["metrics"]["accuracy"]["value"] == 75
    assert result["metrics"]["all_right"]["value"] == 50
    assert result["worst"][0]["answer"] == "new, sold"


def test_a_learner_is_judged_by_tasks_of_unseen_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes that lie apart are told from one example, and by the class means where the package has no way of its own."""
    monkeypatch.setattr(episodes, "_TASKS", 50)
    features = np.repeat(10 * np.eye(4), 8, axis=0) + np.random.default_rng(0).normal(0, 0.1, (32, 4))
    data = archive(tmp_path / "held.npz", features, np.repeat(["a", "b", "c", "d"], 8))
    card = evaluate(embedding_package(tmp_path / "learner" / "package", 4), "--data", data)
    result = card["packages"][0]["results"]["held"]
    assert result["metrics"]["accuracy"]["value"] == 100
    assert [row[:3] for row in result["episodes"]["rows"]] == [[4, 1, 7], [4, 5, 3]]
    assert "class means" in result["adapted_by"]
    mixed = archive(tmp_path / "mixed.npz", np.zeros((32, 4)), np.repeat(["a", "b", "c", "d"], 8))
    chance = evaluate(tmp_path / "learner", "--data", mixed)["packages"][0]["results"]["mixed"]["metrics"]["accuracy"]
    assert chance["value"] == 25
    alone = archive(tmp_path / "alone.npz", np.zeros((2, 4)), ["a", "b"])
    assert "no two classes have two samples or more (a: 1, b: 1)" in evaluate(
        tmp_path / "learner", "--data", alone, code=2
    )


def test_transfer_is_a_matrix_of_packages_and_domains(package: Path, tmp_path: Path) -> None:
    same = shutil.copytree(package.parent, tmp_path / "again")
    good = photos(tmp_path / "good", {"red": ["red"] * 2, "blue": ["blue"] * 2})
    poor = photos(tmp_path / "poor", {"red": ["red", "blue"], "blue": ["red", "blue"], "sky": ["blue"]})
    card = evaluate(package.parent, same, "--data", f"day={good}", "--data", f"night={poor}")
    matrix = card["transfer"]
    assert matrix["domains"] == ["day", "night"]
    assert [row["package"] for row in matrix["rows"]] == ["colours", "again"]
    assert [[cell["value"] for cell in row["cells"]] for row in matrix["rows"]] == [[100, 50], [100, 50]]
    result = card["packages"][0]["results"]["night"]
    assert result["unknown"][0] == {
        "class": "sky", "samples": 1, "taken_for": "blue", "share_percent": 100.0, "confidence": result["unknown"][0]["confidence"],
    }  # fmt: skip
    assert result["absent_classes"] == ["green"]
    assert any("1 sample of 1 class that the package does not know ('sky')" in text for text in card["warnings"])
    assert not any("transfer" in each["figure"] for each in card["absent"])


def test_spread_over_seeds(tmp_path: Path) -> None:
    """Runs of one recipe with different seeds; a run of another recipe is only compared."""
    runs: list[Path] = []
    for seed, recipe in ((0, "one"), (1, "one"), (2, "other")):
        package = identity_package(tmp_path / f"run{seed}" / "package", ("cat", "dog"))
        step = {
            "name": "train.supervised",
            "path": "net",
            "kind": "step",
            "seconds": 2.5,
            "hit": False,
            "report": None,
            "fields": {},
        }
        epochs = {"columns": ["epoch", "train_loss", "val_loss"], "rows": [[1, 0.9, 1.0], [2, 0.5, 0.8]]}
        report = {
            "schema": 1, "name": recipe, "title": "", "summary": {}, "targets": [],
            "seed": seed, "wall_s": 3.0, "seeds": None, "environment": {"threads": 1},
            "recipe": {"yaml": f"schema: 1\nname: {recipe}\nseed: {seed}\n"}, "steps": [{**step, "epochs": epochs}],
        }  # fmt: skip
        (package.parent / "report.json").write_text(json.dumps(report), encoding="utf-8")
        runs.append(package.parent)
    data = archive(tmp_path / "held.npz", [[1, 0], [0, 1]], ["cat", "cat"])
    card = evaluate(*runs[:2], "--data", data)
    assert card["seeds"]["seeds"] == [0, 1]
    assert card["seeds"]["metrics"]["held: accuracy"]["value"] == 50
    assert card["seeds"]["metrics"]["held: accuracy"]["ci95"] == 0
    training = card["packages"][0]["training"]
    assert (training["wall_s"], training["seconds"], training["losses"]["val_loss"]) == (3.0, 2.5, [1.0, 0.8])
    assert training["gap"]["size"] == pytest.approx(0.3)
    page = cards.render(card)
    assert "Over seeds" in page
    assert "val_loss" in page
    said = mapsto("evaluate", *runs[:2], "--data", data, "--no-speed", code=0).out
    assert "Over seeds 0, 1" in said
    assert "run0 was made in 3.0 s with seed 0; loss 0.5 on its training examples, 0.8 on others" in said
    assert evaluate(runs[0], runs[2], "--data", data)["seeds"] is None
    (runs[0] / "report.json").write_text("{", encoding="utf-8")
    broken = evaluate(runs[0], "--data", data)
    assert broken["packages"][0]["training"] is None
    assert any("what the run tells of its training is passed over" in text for text in broken["notes"])


def test_samples_that_a_package_was_made_with_are_found_again(tmp_path: Path) -> None:
    from mapsto.context import SilentContext
    from mapsto.kinds import Package
    from mapsto.nn.export.training_digests import with_training_digests
    from mapsto.report.build import save_package

    plain = color_package(tmp_path / "plain")
    data = photos(tmp_path / "held", {"red": ["red"] * 3, "blue": ["blue"]})
    seen = [np.asarray(Image.open(path)).transpose(2, 0, 1) for path in sorted((data / "red").iterdir())[:2]]
    files = {name: plain / name for name in ("model.onnx", "manifest.json")}
    save_package(
        with_training_digests(Package(files=files), np.stack(seen), SilentContext()), tmp_path / "run" / "package"
    )
    (data / "red" / "1.png").rename(data / "red" / "moved.png")  # another name, and the same picture
    card = evaluate(tmp_path / "run", "--data", data)
    leakage = card["packages"][0]["results"]["held"]["leakage"]
    assert (leakage["training_samples"], leakage["seen"], leakage["share_percent"]) == (2, 2, 50.0)
    assert any("2 of 4 samples are among those that the package was made with" in text for text in card["warnings"])
    unknown = evaluate(plain, "--data", data, "--out", tmp_path / "out")
    assert "keeps no record" in unknown["packages"][0]["results"]["held"]["leakage"]["absent"]


def test_duplicates_and_contradictions_are_counted(package: Path, tmp_path: Path) -> None:
    data = photos(tmp_path / "held", {"red": ["red"], "blue": ["blue"]})
    shutil.copy(data / "red" / "1.png", data / "red" / "copy.png")
    shutil.copy(data / "red" / "1.png", data / "blue" / "copy.png")
    card = evaluate(package, "--data", data)
    assert (card["data"][0]["duplicates"], card["data"][0]["contradictions"]) == (2, 1)
    assert any("labelled differently" in text for text in card["warnings"])


@pytest.mark.slow
def test_a_learner_that_takes_steps_adapts_by_itself(tmp_path: Path) -> None:
    from mapsto import datasets, export, meta, networks
    from mapsto.report.build import save_package

    digits = datasets.digits(size=16)
    tasks = datasets.episodes(data=digits, ways=3, shots=2, queries=2)
    network = meta.maml(tasks=tasks, steps=2, inner_steps=2, engine="loop")(networks.conv4(data=digits, width=8)())
    save_package(export.onnx()(network), tmp_path / "maml" / "package")
    result = evaluate(tmp_path / "maml", "--data", "{digits: {size: 16}}")["packages"][0]["results"]["digits"]
    assert "the learner's own way" in result["adapted_by"]
    assert result["metrics"]["accuracy"]["value"] > 40, "chance is a third"
    assert result["metrics"]["accuracy"]["n"] == 100
    assert result["episodes"]["rows"][0][0] == 3, "the ways of its head"


@pytest.mark.slow
def test_a_run_without_a_package_is_judged_by_what_it_made_last(tmp_path: Path) -> None:
    """And what its recipe trained on is found again among what is judged."""
    recipe = tmp_path / "recipe.yaml"
    few, rest = (
        f"{{subset: {{data: {{digits: {{size: 8}}}}, per_class: 2, part: {part}}}}}" for part in ("chosen", "rest")
    )
    network = "{networks.conv4: {data: $few, width: 4, blocks: 1, classes: data}}"
    training = "{train.supervised: {data: $few, validation: $rest, epochs: 1}}"
    recipe.write_text(
        f"schema: 1\ndata: {{few: {few}, rest: {rest}}}\nsteps: [{network}, {training}]\n", encoding="utf-8"
    )
    run, store = tmp_path / "run", tmp_path / "store"
    mapsto("run", recipe, "--out", run, "--store", store, "--threads", 1, code=0)
    card = evaluate(run, "--data", "{digits: {size: 8}}", "--store", store)
    assert any(
        "the run made no package; its last network, of train.supervised, was exported" in text for text in card["notes"]
    )
    leakage = card["packages"][0]["results"]["digits"]["leakage"]
    assert (leakage["training_samples"], leakage["seen"], leakage["validation_seen"]) == (20, 20, 1777)
    assert any("1777 of 1797 samples are among the run's validation data" in text for text in card["warnings"])
    assert card["packages"][0]["training"]["steps"][0]["mapping"] == "train.supervised"
    assert (run / "card.html").is_file()
    assert "name the run's store with --store" in evaluate(
        run, "--data", "digits", "--store", tmp_path / "other", code=2
    )


# ----------------------------------------------------------------------------------------------------------------- bad input


def test_images_of_mixed_sizes_and_modes_are_counted_and_a_broken_one_is_named(package: Path, tmp_path: Path) -> None:
    data = photos(tmp_path / "held", {"red": ["red"] * 2, "blue": ["blue"]})
    Image.new("RGBA", (20, 10), (250, 0, 0, 255)).save(data / "red" / "wide.png")
    Image.new("L", (8, 8), 90).save(data / "blue" / "grey.png")
    whole = (data / "red" / "1.png").read_bytes()
    (data / "red" / "cut.png").write_bytes(whole[: len(whole) // 2])
    card = evaluate(package, "--data", data)
    held = card["data"][0]
    assert held["samples"] == 5
    assert held["skipped"] == 1
    assert held["sizes"] == {"8 × 8": 4, "20 × 10": 1}
    assert held["modes"] == {"RGB": 3, "RGBA": 1, "L": 1}
    assert any("cut.png (a broken or truncated image" in text for text in card["warnings"])


def test_a_split_is_chosen_and_said(package: Path, tmp_path: Path) -> None:
    photos(tmp_path / "held" / "train", {"red": ["red"] * 3})
    photos(tmp_path / "held" / "test", {"red": ["red"], "blue": ["blue"]})
    card = evaluate(package, "--data", tmp_path / "held")
    assert (card["data"][0]["split"], card["data"][0]["samples"]) == ("test", 2)
    assert any("the split test is judged, not train" in text for text in card["notes"])
    assert evaluate(package, "--data", tmp_path / "held", "--split", "train")["data"][0]["samples"] == 3


def test_names_in_another_case_and_labels_that_are_numbers(tmp_path: Path, package: Path) -> None:
    data = photos(tmp_path / "held", {"Red": ["red"], "BLUE ": ["blue"]})
    card = evaluate(package, "--data", data)
    assert card["packages"][0]["results"]["held"]["metrics"]["accuracy"]["value"] == 100
    assert any("differs in case or spaces alone" in text for text in card["notes"])
    pets = identity_package(tmp_path / "pets" / "package", ("cat", "dog"))
    numbered = archive(tmp_path / "numbered.npz", [[1, 0], [0, 1]], [0, 1])
    card = evaluate(pets, "--data", numbered)
    assert card["packages"][0]["results"]["numbered"]["metrics"]["accuracy"]["value"] == 100
    assert any("0 = cat, 1 = dog" in text for text in card["warnings"])
    renamed = archive(tmp_path / "renamed.npz", [[1, 0], [0, 1]], [0, 1], classes=np.array(["dog", "cat"]))
    assert evaluate(pets, "--data", renamed)["packages"][0]["results"]["renamed"]["metrics"]["accuracy"]["value"] == 0
    beyond = archive(tmp_path / "beyond.npz", [[1, 0], [0, 1]], [1, 2])
    assert "labels run from 1 to 2, and there are 2 classes" in evaluate(pets, "--data", beyond, code=2)


def test_one_class_alone_is_warned_of(package: Path, tmp_path: Path) -> None:
    card = evaluate(package, "--data", photos(tmp_path / "held", {"red": ["red", "red", "blue"]}))
    assert any("all samples are of the class 'red'" in text for text in card["warnings"])


def test_the_column_that_is_predicted_is_found_among_ids_and_dates(tmp_path: Path) -> None:
    table = tmp_path / "held.csv"
    table.write_text("no,a,b,day,kind,owner\n1,1,0,2024-05-01,a,Ann\n2,0,1,2024-05-02,b,Bob\n3,3,1,2024-05-03,b,a\n")
    left = ("no", "day", "kind", "owner")
    rows = table_package(tmp_path / "rows" / "package", left_out=left).parent
    card = evaluate(rows, "--data", table)
    assert card["data"][0]["target"] == "kind"
    assert card["packages"][0]["results"]["held"]["metrics"]["accuracy"]["value"] == pytest.approx(200 / 3, abs=0.01)
    assert any("column 'kind' is taken for the one that is predicted" in text for text in card["notes"])
    table.write_text(table.read_text().replace("Ann", "a").replace("Bob", "b"))
    assert "name it with --target: kind, owner" in evaluate(rows, "--data", table, code=2)
    table.write_text("no,a,b,price\n7,1,0,2\n8,2,0,3\n")
    value = table_package(tmp_path / "value" / "package", values=True, left_out=("no", "price")).parent
    assert evaluate(value, "--data", table)["packages"][0]["results"]["held"]["metrics"]["mae"]["value"] == 1


def test_gaps_in_a_table(tmp_path: Path) -> None:
    table = tmp_path / "held.csv"
    table.write_text("b,a,label\n0,1,a\n1,,b\n2,x,b\n3,0,\n", encoding="utf-8")
    card = evaluate(table_package(tmp_path / "run" / "package"), "--data", table)
    assert card["packages"][0]["results"]["held"]["metrics"]["accuracy"]["n"] == 2
    assert any("missing values are filled" in text for text in card["notes"])
    assert any("1 row has no value in 'label'" in text for text in card["warnings"])
    assert any("row 3, column 'a' holds 'x'" in text for text in card["warnings"])
    strict = table_package(tmp_path / "strict" / "package", fill=False)
    assert evaluate(strict, "--data", table)["data"][0]["skipped"] == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["{run}"], "no data are given"),
        (["{run}", "--data", "{place}/nowhere"], "no such folder, file or data set"),
        (["{run}", "--data", "{place}/empty"], "holds no folder with images in it"),
        (["{run}", "--data", "{place}/others"], "the package knows none of its classes ('cat', 'dog')"),
        (["{run}", "--data", "{place}/broken"], "not one of 1 samples could be read"),
        (["{run}", "--data", "{place}/table.csv"], "the package takes images, and this is a table"),
        (["{run}", "--data", "{place}/held", "--target", "label"], "--target is a column of a table"),
        (["{run}", "--data", "{place}/note.txt"], "hold no labelled samples that are read here"),
        (["{run}", "--data", "x=", "--data", "{place}/held"], "'x=' names no data"),
        (["{run}", "--data", "x={place}/held", "--data", "x={place}/held"], "two data are named 'x'"),
        (["{run}", "--data", "{place}/held", "--split", "test"], "there is no split 'test'"),
        (["{place}/empty", "--data", "{place}/held"], "no package is here"),
        (["{place}/gone", "--data", "{place}/held"], "there is no such run or package"),
        (["{place}/rows", "--data", "{place}/held"], "the package takes rows of a table, and this is a folder"),
        (["{place}/rows", "--data", "{place}/table.csv", "--target", "lable"], "did you mean 'label'?"),
        (["{place}/rows", "--data", "{place}/table.csv", "--target", "a"], "the package predicts from column 'a'"),
        (["{place}/rows", "--data", "{place}/headless.csv"], "there is no column 'label'"),
        (["{place}/numbers", "--data", "{place}/nan.npz"], "holds NaN or infinity"),
        (["{place}/numbers", "--data", "{place}/short.npz"], "2 inputs but 1 labels"),
        (["{place}/numbers", "--data", "{place}/unnamed.npz"], "not inputs and labels"),
        (["{place}/numbers", "--data", "{place}/days.npz"], "not one class for each sample"),
        (["{place}/numbers", "--data", "{place}/complex.npz"], "not one class for each sample"),
        (["{place}/numbers", "--data", "{place}/infinite.npz"], "not one class for each sample"),
        (["{place}/numbers", "--data", "{place}/single.npz"], "'labels' is one value, no array"),
        (["{place}/rows", "--data", "{place}/rowless.csv", "--target", "label"], "not one row below the header"),
        (["{place}/numbers", "{run}", "--data", "{place}/held"], "{place}/held"),
        (["{place}/damaged", "--data", "{place}/held"], "is not the file that was exported"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused_with_a_remedy(given: list[str], said: str, bad: Path) -> None:
    words = [word.format(run=bad / "colours", place=bad) for word in given]
    error = evaluate(*words, code=2)
    assert said.format(run=bad / "colours", place=bad) in error
    assert "; " in error, "what to do next"
    assert not list(bad.rglob("card.*"))


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bad")
    color_package(place / "colours" / "package")
    shutil.copytree(place / "colours", place / "damaged")
    archive(place / "days.npz", [[1, 0], [0, 1]], np.array(["2020-01-01"] * 2, "datetime64[D]"))
    archive(place / "complex.npz", [[1, 0], [0, 1]], [1j, 2j])
    archive(place / "infinite.npz", [[1, 0], [0, 1]], [np.inf, 1.0])
    archive(place / "single.npz", [[1, 0], [0, 1]], 1)
    (place / "rowless.csv").write_text("a,b,label\n")
    with (place / "damaged" / "package" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    table_package(place / "rows" / "package")
    identity_package(place / "numbers" / "package", ("cat", "dog"))
    (place / "empty").mkdir()
    photos(place / "held", {"red": ["red"], "blue": ["blue"]})
    photos(place / "others", {"cat": ["red"], "dog": ["blue"]})
    (place / "broken" / "red").mkdir(parents=True)
    (place / "broken" / "red" / "a.png").write_bytes(b"no image")
    (place / "note.txt").write_text("x", encoding="utf-8")
    (place / "table.csv").write_text("a,b,label\n1,0,a\n0,1,b\n", encoding="utf-8")
    (place / "headless.csv").write_text("1,0,a\n0,1,b\n", encoding="utf-8")
    archive(place / "nan.npz", [[1, np.nan], [0, 1]], [0, 1])
    archive(place / "short.npz", [[1, 0], [0, 1]], [0])
    np.savez(place / "unnamed.npz", first=np.zeros(2), second=np.zeros(2))
    return place


# ---------------------------------------------------------------------------------------------------------- what is written


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a card with all that a card of images has."""
    place = tmp_path_factory.mktemp("written")
    color_package(place / "colours" / "package")
    photos(place / "day", {"red": ["red"] * 4 + ["blue"], "green": ["green"] * 3, "blue": ["blue"] * 4})
    photos(place / "night", {"red": ["red", "green"], "<b>odd|name</b>": ["blue"]})
    mapsto("evaluate", place / "colours", "--data", place / "day", "--data", place / "night", code=0)
    return place / "colours"


def test_the_card_is_written_beside_the_package_and_holds_what_is_measured(written: Path) -> None:
    card = json.loads((written / "card.json").read_text(encoding="utf-8"))
    assert (card["schema"], card["what"], card["kind"], card["main"]) == (cards.SCHEMA, "card", "classes", "accuracy")
    (package,) = card["packages"]
    speed, size = package["speed"], package["size"]
    assert speed["by_threads"][0]["threads"] == 1
    for one in speed["by_threads"]:
        assert 0 < one["p50_ms"] <= one["p95_ms"] <= one["p99_ms"]
        assert one["samples_per_s"] > 0
    assert speed["memory_peak"] > speed["memory_before"] > 1_000_000
    assert speed["process_s"] > speed["open_s"] > 0
    files = [path for path in (written / "package").rglob("*") if path.is_file()]
    assert size["package_bytes"] == sum(path.stat().st_size for path in files)
    assert size["model_bytes"] == (written / "package" / "model.onnx").stat().st_size
    reasons = {each["figure"]: each["reason"] for each in card["absent"]}
    assert "training cost" in reasons
    assert "speed and peak memory" not in reasons


def test_the_page_stands_alone_and_shows_every_part(written: Path) -> None:
    page = (written / "card.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page), "nothing is loaded from anywhere"
    assert "<b>odd" not in page
    for part in (
        'id="results"',
        'id="transfer"',
        'id="cost"',
        'id="data"',
        'id="absent"',
        'aria-label="confusion matrix"',
    ):
        assert part in page
    assert page.count('aria-label="accuracy against confidence"') == 2
    assert page.count('<img class="') == 2, "the one that was wrong in each domain"
    assert "Where it was most wrong" in page
    with pytest.raises(Exception, match="of schema 99"):
        cards.render({"schema": 99, "what": "card"})


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path")
@pytest.mark.parametrize("width", [400, 1200])
def test_the_page_in_a_browser(written: Path, tmp_path: Path, width: int) -> None:
    page = (written / "card.html").read_text(encoding="utf-8")
    assert in_a_browser(page, tmp_path, width) == {"wide": width, "loaded": [], "open": True, "broken": 0}


def test_the_form_of_the_card_changes_with_its_schema_alone(written: Path) -> None:
    """Programs read it: a key that goes, or means something else, needs another number in `SCHEMA`."""
    assert cards.SCHEMA == 1
    card = json.loads((written / "card.json").read_text(encoding="utf-8"))
    package = card["packages"][0]
    result = package["results"]["day"]
    keys: dict[str, Any] = {
        "card": card, "package": package, "size": package["size"], "speed": package["speed"], "threads": package["speed"]["by_threads"][0],
        "result": result, "metrics": result["metrics"], "metric": result["metrics"]["accuracy"], "calibration": result["calibration"],
        "probabilities": result["calibration"]["metrics"], "worst": result["worst"][0], "transfer": card["transfer"],
        "data": card["data"][0],
    }  # fmt: skip
    assert {name: " ".join(sorted(tree)) for name, tree in keys.items()} == {
        "card": "absent created data environment kind main notes packages schema seeds title transfer wall_s warnings what",
        "package": "answers classes fingerprint format name path results runtime size speed takes training",
        "size": "files model_bytes package_bytes parameters",
        "speed": "by_threads first_ms memory_before memory_peak open_s process_s runtime",
        "threads": "batch calls mean_ms p50_ms p95_ms p99_ms samples_per_s std_ms threads",
        "result": "absent_classes calibration confusion kind leakage metrics per_class unknown worst",
        "metrics": "accuracy balanced_accuracy macro_f1 most_frequent",
        "metric": "ci95 high low measured n unit value",
        "calibration": "bins metrics temperature",
        "probabilities": "brier confidence ece ece_by_chance nll",
        "worst": "answer confidence label of_label picture source",
        "transfer": "domains figure rows unit",
        "data": "classes contradictions duplicates fingerprint kind modes name path samples sizes skipped skipped_first split target",
    }


def test_the_model_card_is_markdown_with_front_matter_that_the_hub_reads(written: Path) -> None:
    text = (written / "card.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    tree = yaml.safe_load(front)
    assert tree["library_name"] == "mapsto"
    assert tree["pipeline_tag"] == "image-classification"
    first = tree["model-index"][0]["results"][0]
    assert first["dataset"]["name"] == "day"
    assert {each["type"]: each["value"] for each in first["metrics"]}["accuracy"] == pytest.approx(91.6667)
    headings = ("Model Details", "Uses", "Bias, Risks, and Limitations", "Training Details", "Evaluation")
    for heading in ("# Model card of colours", *(f"## {name}" for name in headings)):
        assert f"\n{heading}" in body
    rows = [line for line in body.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)
    assert "<b>" not in body


def test_a_page_of_values_has_its_charts(tmp_path: Path) -> None:
    table = tmp_path / "held.csv"
    rows = [f"{i},{i % 3},{i + (i % 5) / 3:.3f}" for i in range(40)]
    table.write_text("\n".join(["a,b,label", *rows]) + "\n", encoding="utf-8")
    out = mapsto(
        "evaluate", table_package(tmp_path / "run" / "package", values=True), "--data", table, "--no-speed", code=0
    ).out
    assert "RMSE" in out
    page = (tmp_path / "run" / "card.html").read_text(encoding="utf-8")
    assert page.count("<circle") == 40
    assert 'aria-label="samples by answer − value"' in page


def test_no_training_library_is_imported(bad: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from mapsto.cli.app import app; import mapsto.cli.main\n"
        f"app(['evaluate', {str(bad / 'colours')!r}, '--data', {str(bad / 'held')!r}, '--no-speed', '--out', {str(tmp_path)!r}], "
        "standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "card.html").is_file()


def test_a_package_is_measured_in_this_process_too(package: Path) -> None:
    found = measured(package, threads=(1, 2), seconds=0.02)
    assert [each["threads"] for each in found["by_threads"]] == [1, 2]
    assert found["by_threads"][0]["calls"] >= 10
    assert measured(package, seconds=0)["by_threads"] == []


def test_colours_are_what_the_helper_says(package: Path) -> None:
    from mapsto_runtime.predictor import Predictor

    image = np.tile(np.array(SHADES["green"], np.uint8).reshape(3, 1, 1), (1, 8, 8))
    assert Predictor(package).predict([image])[0].label == COLOURS[1]


# ------------------------------------------------------------------------------------------------------------- explanations


def explained_in(card: Any, domain: str) -> list[Any]:
    return card["packages"][0]["results"][domain]["explained"]


def test_a_few_answers_about_images_are_explained_with_pictures(package: Path, tmp_path: Path) -> None:
    """Wrong ones first; of a picture whose left half is red and right half green, the larger half speaks for its colour."""
    shown = photos(tmp_path / "photos", {"red": ["red"] * 6, "green": ["green", "red"], "blue": ["blue"]})
    pixels = np.tile(np.array(SHADES["green"], np.uint8), (8, 8, 1))
    pixels[:, :3] = SHADES["red"]
    Image.fromarray(pixels).save(shown / "red" / "halves.png")
    (shown / "blue" / "broken.png").write_bytes(b"no image")
    card = evaluate(package, "--data", shown, "--explain")
    cases = explained_in(card, "photos")
    assert [case["right"] for case in cases] == [False, False, True, True, True, True]
    assert {case["label"] for case in cases[2:5]} == {"red", "green", "blue"}, (
        "one of each class before a second of any"
    )
    (halves,) = [case for case in cases if case["source"].endswith("halves.png")]
    assert halves["answer"] == halves["explanation"]["target"] == "green"
    cells = np.array(halves["explanation"]["cells"])
    assert cells[:, 4:7].min() > 0 > cells[:, :2].max()
    assert all(case["picture"].startswith("data:image/png;base64,") for case in cases)
    page = (package.parent / "card.html").read_text(encoding="utf-8")
    assert page.count("what speaks for") == len(cases)
    assert "explained" not in evaluate(package, "--data", shown)["packages"][0]["results"]["photos"], "unless asked for"


def test_of_rows_columns_are_explained_and_gaps_in_the_data_shift_nothing(tmp_path: Path) -> None:
    table = tmp_path / "held.csv"
    table.write_text("a,b,label\n1,0,\n5,0,b\n0,2,b\n", encoding="utf-8")
    card = evaluate(table_package(tmp_path / "pair" / "package"), "--data", table, "--explain")
    wrong, right = explained_in(card, "held")
    assert (wrong["source"], wrong["right"], right["source"], right["right"]) == ("row 2", False, "row 3", True)
    assert [(each["name"], each["value"], each["score"]) for each in wrong["explanation"]["columns"]] == [
        ("a", "5", 5.0),
        ("b", "0, its mean, or missing", 0.0),
    ]
    markdown = (tmp_path / "pair" / "card.md").read_text(encoding="utf-8")
    assert "| held | row 3 | b | b | b +2, a +0 |" in markdown


def test_of_texts_words_are_explained(tmp_path: Path) -> None:
    table = tmp_path / "held.csv"
    table.write_text("text,intent\nlost my card,card\nred card,fruit\n", encoding="utf-8")
    words = {"card": (2.0, 0.0), "red": (0.0, 0.5)}
    folder = word_package(tmp_path / "intents" / "package", ("card", "fruit"), words)
    wrong, right = explained_in(evaluate(folder, "--data", table, "--target", "intent", "--explain"), "held")
    assert (wrong["label"], wrong["answer"], right["right"]) == ("fruit", "card", True)
    found = {each["name"]: each["score"] for each in wrong["explanation"]["words"]}
    assert found == pytest.approx({"red": -0.5, "card": 2.0})


def test_of_values_those_furthest_off_and_closest_are_explained(tmp_path: Path) -> None:
    table = tmp_path / "held.csv"
    table.write_text("a,b,label\n1,0,1\n2,0,9\n3,0,3.5\n", encoding="utf-8")
    card = evaluate(table_package(tmp_path / "price" / "package", values=True), "--data", table, "--explain")
    cases = explained_in(card, "held")
    assert [(case["source"], case["right"]) for case in cases] == [("row 2", False), ("row 3", False), ("row 1", True)]
    assert cases[0]["explanation"] == {
        "target": "price",
        "score": 2.0,
        "without": 0.0,
        "way": "occlusion",
        "columns": [
            {"name": "a", "value": "2", "score": 2.0},
            {"name": "b", "value": "0, its mean, or missing", "score": 0.0},
        ],
        "value": True,
    }


def test_of_several_labels_the_one_that_is_surely_wrong_is_explained(tmp_path: Path) -> None:
    data = archive(tmp_path / "held.npz", [[1, -1], [1, 3]], [[1.0, 0.0], [1.0, 0.0]])
    card = evaluate(
        identity_package(tmp_path / "tags" / "package", ("new", "sold"), answers="labels"),
        "--data",
        data,
        "--explain",
    )
    wrong, right = explained_in(card, "held")
    assert (wrong["source"], wrong["explanation"]["target"]) == ("sample 1", "sold")
    assert (right["source"], right["explanation"]["target"]) == ("sample 0", "new")


def test_where_there_is_no_answer_to_explain_the_card_says_why(tmp_path: Path) -> None:
    data = archive(tmp_path / "held.npz", np.eye(4).repeat(8, 0), np.repeat(["a", "b", "c", "d"], 8))
    card = evaluate(embedding_package(tmp_path / "learner" / "package", 4), "--data", data, "--explain")
    (reason,) = [each["reason"] for each in card["absent"] if each["figure"] == "explanations"]
    assert "it gives embeddings" in reason
