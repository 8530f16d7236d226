"""``mapsto adapt`` with a pretrained network: the ways that are tried, unlabelled examples, limits, and what it says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.command import mapsto

from mapsto import datasets, export, networks
from mapsto.cli.adapt.command import _sureness
from mapsto.cli.adapt.networks import Asked, _accuracy_before, _require_within_reach, adapt_network
from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.report.build import save_package
from mapsto.run.result import Listener
from mapsto.search.adapt import Examples
from mapsto.search.compress import parse_limit
from mapsto_runtime.predictor import Predictor

DIGITS = datasets.digits(size=16)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose only network knows the digits 5 to 9."""
    folder = tmp_path_factory.mktemp("network")
    others = "{subset: {data: {digits: {size: 16}}, classes: ['5', '6', '7', '8', '9']}}"
    (folder / "recipe.yaml").write_text(
        f"schema: 1\nsteps:\n  - networks.conv4: {{data: {others}, width: 16, classes: data}}\n"
        f"  - train.supervised: {{data: {others}, epochs: 3, batch_size: 32}}\n    as: trained\n",
        encoding="utf-8",
    )
    mapsto("run", folder / "recipe.yaml", "--out", folder / "run", "--store", folder / "store", code=0)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four labelled images of the digits 0 to 2, as many in a test split, and 40 of each without a label."""
    folder = tmp_path_factory.mktemp("photos")
    samples = DIGITS.open()
    for label in range(3):
        places = np.flatnonzero(samples.labels == label)
        for name, part in (("train", places[:4]), ("test", places[4:14]), ("pool", places[20:60])):
            for number, index in enumerate(part.tolist()):
                path = folder / ("pool" if name == "pool" else f"photos/{name}/digit {label}") / f"{label}-{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(255 - samples.inputs[index, 0]).save(path)
    return folder


def adapted(network: Path, photos: Path, out: Path, *more: Any) -> dict[str, Any]:
    given = ["adapt", network / "run", photos / "photos", "--step", "trained", "--store", network / "store"]
    return json.loads(mapsto(*given, "--out", out, "--json", *more, code=0).out)


def test_every_way_is_judged_and_the_folder_holds_the_recipe(network: Path, photos: Path, tmp_path: Path) -> None:
    found = adapted(network, photos, tmp_path, "--unlabelled", photos / "pool", "--minutes", 0)
    ways = {way["way"]: way for way in found["ways"]}
    assert [*ways] == ["propagation, ridge", "pt_map, ridge", "ridge", "centroid", "logistic", "nearest"]
    assert [name for name, way in ways.items() if way["taken"]] == [found["method"]]
    assert found["accuracy_low_percent"] < found["accuracy_percent"] <= found["accuracy_high_percent"]
    assert found["test_accuracy_percent"] > 70, "by chance 33"
    recipe = yaml.safe_load((tmp_path / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["data"]["pool"]["images"]["unlabelled"] is True
    assert "pt_map, ridge" in (tmp_path / "report.html").read_text(encoding="utf-8")
    again = mapsto("run", tmp_path / "recipe.yaml", "--plan", "--store", network / "store", code=0)
    assert "would run" not in again.out


@pytest.mark.slow
def test_settings_of_fine_tuning_are_searched(network: Path, photos: Path, tmp_path: Path) -> None:
    adapted(network, photos, tmp_path / "out", "--trials", 3)
    trials = json.loads((tmp_path / "out" / "search" / "frontier.json").read_text(encoding="utf-8"))["trials"]
    assert [each["state"] for each in trials] == ["complete"] * 3
    assert trials[1]["hits"] > 0, "the frozen branches are the same in all"
    best = max(trials, key=lambda each: each["values"][0])
    steps = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text(encoding="utf-8"))["steps"]
    tuned = next(step["fork"] for step in steps if "fork" in step)["tuned"][0]["adapt.finetune"]
    assert tuned["learning_rate"] in [
        each["holes"]["learning_rate"] for each in trials if each["values"] == best["values"]
    ]


@pytest.mark.slow
def test_a_limit_is_kept(network: Path, photos: Path, tmp_path: Path) -> None:
    whole = adapted(network, photos, tmp_path / "whole", "--minutes", 0)
    most = round(0.5 * whole["bytes"])  # of 41 kB, 10 are no weights: run.py, the manifest, examples
    small = adapted(network, photos, tmp_path / "small", "--minutes", 0, "--limit", f"bytes={most}")
    assert small["bytes"] <= most
    assert small["test_accuracy_percent"] > 60, "by chance 33"
    assert small["whole_accuracy_percent"] == pytest.approx(whole["accuracy_percent"], abs=5)
    assert Predictor(tmp_path / "small" / "package").signature.classes == ("digit 0", "digit 1", "digit 2")


@pytest.mark.slow
def test_a_small_network_with_a_pool_is_judged_by_the_one_before(network: Path, photos: Path, tmp_path: Path) -> None:
    whole = adapted(network, photos, tmp_path / "whole", "--unlabelled", photos / "pool", "--minutes", 0)
    more = ("--unlabelled", photos / "pool", "--minutes", 0, "--limit", f"bytes={round(0.45 * whole['bytes'])}")
    small = adapted(network, photos, tmp_path / "small", *more)
    assert small["accuracy_percent"] == whole["accuracy_percent"]
    assert 60 < small["agreement_percent"] <= 100
    assert small["test_accuracy_percent"] > 60, "by chance 33"
    steps = yaml.safe_load((tmp_path / "small" / "recipe.yaml").read_text(encoding="utf-8"))["steps"]
    assert any("distill.head" in step for step in steps)


@pytest.mark.slow
def test_a_limit_out_of_reach(network: Path, photos: Path, tmp_path: Path) -> None:
    given = ["adapt", network / "run", photos / "photos", "--step", "trained", "--store", network / "store"]
    said = mapsto(*given, "--out", tmp_path / "o", "--minutes", 0, "--limit", "bytes=2k", code=2).err
    assert "more than bytes=2k" in said
    assert "mapsto compress" in said
    assert not (tmp_path / "o" / "package").exists(), "one that is too large is not left behind"


@pytest.mark.parametrize(("limit", "fits"), [("bytes=100", False), ("parameters=100", False), ("macs=1", True)])
def test_a_limit_that_nothing_can_keep_is_refused_at_once(limit: str, fits: bool, tmp_path: Path) -> None:
    data = datasets.subset(data=datasets.digits(size=16), per_class=2)
    whole = networks.conv4(data=data, width=16)()
    parameters = sum(each.numel() for each in whole.module().parameters())
    assert parameters * 0.05 > 100
    asked = Asked(examples=Examples(labelled={}), title="t", folder=tmp_path, limits=(parse_limit(limit),))
    if fits:
        _require_within_reach(whole, asked)
        return
    with pytest.raises(DomainError, match=f"{parameters:,} parameters.*more than {limit}") as said:
        adapt_network({}, whole, data.open(), asked, Context(), Listener())
    assert "mapsto compress" in str(said.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_fine_tuning_is_tried_where_there_is_time(network: Path, photos: Path, tmp_path: Path) -> None:
    found = adapted(network, photos, tmp_path, "--minutes", 1000)
    assert found["ways"][0]["way"] == "fine-tuning"
    assert 0 <= found["ways"][0]["accuracy"] <= 100


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--limit", "size=3"], "'size=3' is no limit"),
        (["--limit", "bytes=1M", "--limit", "bytes=2M"], "two limits are on the same cost"),
        (["--unlabelled", "nowhere"], "nowhere"),
        (["--minutes", "-1"], "--minutes"),
    ],
)
def test_bad_options(options: list[str], said: str, network: Path, photos: Path, tmp_path: Path) -> None:
    given = ["adapt", network / "run", photos / "photos", "--step", "trained", "--store", network / "store"]
    assert said in mapsto(*given, "--out", tmp_path / "o", *options, code=2).err
    assert not (tmp_path / "o" / "package").exists()


@pytest.mark.slow
def test_what_is_left_out_or_not_tried_is_said(network: Path, photos: Path, tmp_path: Path) -> None:
    found = adapted(network, photos, tmp_path, "--unlabelled", photos / "photos" / "train", "--minutes", 1e-6)
    assert any("12 samples of the pool are among the labelled examples too" in note for note in found["notes"])
    assert any("fine-tuning is not tried" in note and "--minutes" in note for note in found["notes"])


def test_a_class_without_a_photo_is_refused_before_anything_runs(photos: Path, network: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(photos / "photos" / "train", tmp_path / "photos")
    (copy / "unsorted").mkdir()
    given = ["adapt", network / "run", copy, "--step", "trained", "--store", network / "store", "--out", tmp_path / "o"]
    said = mapsto(*given, "--minutes", 0, code=2).err
    assert "class 'unsorted' has no samples" in said
    assert "step" not in said
    assert not (tmp_path / "o").exists()


def test_what_a_limit_cost_is_said() -> None:
    found = {"learner": "a", "method": "ridge", "accuracy_percent": 40.0, "accuracy_low_percent": 26.4}
    found |= {"accuracy_high_percent": 55.4, "folds": 5, "whole_accuracy_percent": 78.75}
    assert _sureness(found).endswith(
        "right on 40 % (26.4 to 55.4) by cross-validation in 5 folds, and on 78.75 % before it was made smaller"
    )
    ways = {"columns": ["way", "accuracy", "taken"], "rows": [["ridge", 70.0, ""], ["nearest", 75.0, "yes"]]}
    adapted = {"report": {"tables": {"ways": ways}}}
    assert _accuracy_before({"adapted": adapted}) == 75
    tuned = {"report": {"metrics": {"accuracy": {"value": 81.0}}}}
    assert _accuracy_before({"adapted": adapted, "adapted.accuracy": tuned}) == 81


def test_an_empty_pool_is_refused(network: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    given = ["adapt", network / "run", photos / "photos", "--step", "trained", "--store", network / "store"]
    said = mapsto(*given, "--out", tmp_path / "o", "--unlabelled", tmp_path / "pool", "--minutes", 0, code=2).err
    assert "holds no image" in said


@pytest.mark.slow
def test_a_learner_has_no_use_for_a_pool(photos: Path, tmp_path: Path) -> None:
    from mapsto import meta

    tasks = datasets.episodes(data=DIGITS, ways=3, shots=2, queries=2)
    learner = meta.protonet(tasks=tasks, steps=2)(networks.conv4(data=DIGITS, width=4)())
    save_package(export.onnx()(learner), tmp_path / "learner" / "package")
    given = ["adapt", tmp_path / "learner", photos / "photos", "--out", tmp_path / "o"]
    assert "adapts in its own way" in mapsto(*given, "--unlabelled", photos / "pool", code=2).err


def test_rows_without_a_label_are_looked_at(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [
        f"{random.normal(label * 3):.3f},{random.normal(-label * 3):.3f},{('no', 'yes')[label] if i < 12 else ''}"
        for i, label in enumerate(random.integers(0, 2, 60).tolist())
    ]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,kind", *rows]) + "\n", encoding="utf-8")
    found = json.loads(
        mapsto("adapt", tmp_path / "t.csv", "--target", "kind", "--out", tmp_path / "o", "--json", code=0).out
    )
    assert [way["way"] for way in found["ways"]][:2] == ["logistic", "propagation, ridge"]
    assert found["accuracy_percent"] > 80
    assert any("48 rows without a value of 'kind'" in note for note in found["notes"])


def test_of_the_networks_at_hand_the_better_one_is_taken(
    network: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has seen digits, beside one that is drawn at random; which is first makes no difference."""
    from mapsto.cli.adapt import images
    from mapsto.context import SilentContext

    good, _ = images.find_learner(network / "run", store=str(network / "store"), label="trained")
    noise = networks.vgg(plan=((2,), (2,)), data=DIGITS)(seed=1)
    for order in ((good, noise), (noise, good)):
        found = [images.AtHand(network=each, name="good" if each is good else "noise") for each in order]
        monkeypatch.setattr(images, "_lite0", lambda ctx, found=found: iter(found))
        monkeypatch.setattr(images, "_demo", lambda ctx: iter(()))
        ctx = SilentContext()
        assert images.strongest_at_hand(ctx, photos / "photos" / "train").name == "good"
        assert "of the networks at hand good is taken" in ctx.notes[-1]
        assert "noise: log-loss" in ctx.notes[-1]
