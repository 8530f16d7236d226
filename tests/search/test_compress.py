"""`mapsto compress`: a recipe from a network, data and a target, which is run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.command import mapsto
from typer.testing import CliRunner

from mapsto.cli.app import app
from mapsto.cli.main import main
from mapsto.errors import DataError, MapstoError, SpecError
from mapsto.kinds import Metric
from mapsto.recipe.reader import parse_recipe
from mapsto.search import compress
from mapsto.search.adapt import Examples, Small, adaptation_recipe

DIGITS = "{subset: {data: {digits: {}}, per_class: 40}}"
RECIPE = """\
schema: 1
name: tiny
data: {few: {subset: {data: {digits: {}}, per_class: 40}}}
steps:
  - networks.vgg: {plan: [[16], [16]], data: $few, classes: data}
  - train.supervised: {data: $few, epochs: 8, batch_size: 32, learning_rate: 0.05}
    as: teacher
"""


@given(st.floats(1e-3, 1e6), st.sampled_from([("latency", "us", 1e-3), ("bytes", "kB", 1e3), ("macs", "M", 1e6)]))
def test_a_limit_is_read_in_its_unit(value: float, given_unit: tuple[str, str, float]) -> None:
    kind, unit, factor = given_unit
    text = f"{value:.6f}"
    found = compress.parse_limit(f"{kind}={text}{unit}")
    assert (found.kind, found.most) == (kind, pytest.approx(float(text) * factor))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latency", "'latency' is no limit"),
        ("latencies=3ms", "did you mean 'latency'"),
        ("latency=3", "units: ms, us, µs, s"),
        ("latency=0ms", "a number above 0"),
        ("bytes=3ms", "units: none, b, k, m, kb"),
        ("macs=1.2.3M", "a number above 0"),
        ("macs=.", "a number above 0"),
        ("bytes=nan", "a number above 0"),
        ("bytes=inf", "a number above 0"),
        ("bytes=1e-400", "a number above 0"),
        ("bytes=1e400", r"every network keeps; bytes of 1 to 1e\+15"),
        ("latency=1e300s", r"every network keeps; latency of 1e-07 to 1e\+15 ms"),
        ("parameters=0.2", r"no network keeps; parameters of 1 to 1e\+15"),
    ],
)
def test_other_limits_are_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        compress.parse_limit(text)


def test_data_are_a_folder_an_archive_or_an_entry(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert compress.data_node(str(tmp_path)) == {"images": {"folder": str(tmp_path)}}
    (tmp_path / "x.npz").write_bytes(b"")
    assert list(compress.data_node(str(tmp_path / "x.npz"))) == ["arrays"]
    (tmp_path / "x.csv").write_bytes(b"")
    for text, message in (
        (str(tmp_path / "x.csv"), "needs the column that is predicted"),
        ("digit", "did you mean 'digits'"),
        ("[1, 2]", "neither a path nor one data set"),
    ):
        with pytest.raises(MapstoError, match=message):
            compress.data_node(text)


def test_the_network_comes_from_a_recipe_or_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    data, steps = compress.model_nodes(str(path))
    assert list(data) == ["few"]
    assert [next(iter(step)) for step in steps] == ["networks.vgg", "train.supervised"]
    assert len(compress.model_nodes(str(path), "networks.vgg")[1]) == 1
    with pytest.raises(SpecError, match="there is no step 'techer'; did you mean 'teacher'"):
        compress.model_nodes(str(path), "techer")
    with pytest.raises(DataError, match="there is no such file"):
        compress.model_nodes(f"mapsto.nn.networks.vgg:vgg={tmp_path / 'none.pt'}")
    (tmp_path / "w.pt").write_bytes(b"")
    (step,) = compress.model_nodes(f"mapsto.nn.networks.vgg:vgg={tmp_path / 'w.pt'}")[1]
    assert step["networks.checkpoint"]["factory"] == "mapsto.nn.networks.vgg:vgg"


def test_the_network_is_what_the_package_was_made_of_or_was_before_it_was_quantized(tmp_path: Path) -> None:
    examples = Examples(labelled={"digits": {}}, augment=False, contrastive=1)
    small = Small(head="classifier", texts="int8")
    wanted = {(0, False): "adapted", (3, False): "adapted", (3, True): "words"}
    for (folds, is_small), label in wanted.items():
        recipe = adaptation_recipe(
            network={"networks.minilm": {}}, examples=examples, title="", folds=folds, small=small if is_small else None
        )
        path = tmp_path / "adapted.yaml"
        path.write_text(recipe)
        data, steps = compress.model_nodes(str(path))
        assert steps[-1]["as"] == label
        assert compress.knows((data, steps), {"digits": {}})
    assert compress.model_nodes("demo")[1][-1]["as"] == "teacher"
    assert compress.model_nodes("whole")[1][-1] == {"choose.branch": {"label": "labels_and_teacher"}}


def test_a_learner_is_found_in_the_branch_that_was_taken() -> None:
    meta = {"meta.protonet": {"tasks": "$tasks"}}
    entries = {"tasks": {"episodes": {"data": {"digits": {}}, "ways": 5, "shots": 1, "queries": 3}}}
    fork = {"fork": {"plain": [meta], "other": [meta, {"adapt.centroid": {"data": "$few"}}]}}
    for label, learns in (("plain", True), ("other", False)):
        steps = [fork, {"choose.branch": {"label": label}}]
        assert (compress._learner_and_tasks(entries, steps) is not None) == learns


def test_a_run_that_fails_leaves_no_recipe(tmp_path: Path) -> None:
    path, out = tmp_path / "headless.yaml", tmp_path / "out"
    path.write_text("schema: 1\nsteps: [{networks.vgg: {plan: [[4]], data: {digits: {}}}}]\n")
    shown = mapsto("compress", path, "digits", "--limit", "bytes=1MB", "--out", out, code=2)
    assert "not 10 classes" in shown.err
    assert not out.exists()
    out.mkdir()
    (out / "recipe.yaml").write_text("of another run")
    mapsto("compress", path, "digits", "--limit", "bytes=1MB", "--out", out, code=2)
    assert (out / "recipe.yaml").read_text() == "of another run"


def test_a_checkpoint_takes_its_form_from_the_options_and_the_data(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"")
    fields = compress.checkpoint_fields(
        mean="0.485,0.456,0.406", std="0.25", input="3,32,32", arguments="{num_classes: 10}"
    )
    data = yaml.safe_load(DIGITS)
    model = compress.model_nodes(f"resnet:resnet20={tmp_path / 'w.pt'}", data=data, fields=fields)
    limits = (compress.parse_limit("bytes=1MB"),)
    recipe = compress.compression_recipe(model=model, data=data, test=None, limits=limits, shares=(1.0,), epochs=1)
    chain: Any = parse_recipe(recipe).steps
    original = chain.steps[0].mapping
    assert (original.mean, original.std, original.input) == ((0.485, 0.456, 0.406), (0.25,), (3, 32, 32))
    assert original.arguments == {"num_classes": 10}
    assert original.data == parse_recipe(recipe).data["all"]
    for wrong in ({"mean": "a,b"}, {"input": "1.5"}, {"arguments": "[1]"}, {"arguments": "{"}):
        with pytest.raises(SpecError, match=next(iter(wrong))):
            compress.checkpoint_fields(**wrong)
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    with pytest.raises(SpecError, match="--mean belongs to a checkpoint"):
        compress.model_nodes(str(path), fields={"mean": [0.5]})


def test_one_example_of_a_class_is_refused_and_ten_are_enough_to_keep_some_back() -> None:
    def few(count: int) -> dict[str, Any]:
        return {"subset": {"data": {"digits": {}}, "per_class": count}}

    with pytest.raises(DataError, match=r"class '0' has 1 of the examples.* at least 2 of each class, better 10"):
        compress.folds_for(few(1))
    assert compress.folds_for(few(3)) == compress.Folds(3, 30)
    assert compress.folds_for(few(9)) == compress.Folds(5, 90)
    assert compress.folds_for(few(10)) is None
    two = {"subset": {"data": {"digits": {}}, "classes": ["0", "1"], "per_class": 5}}
    assert compress.folds_for(two) == compress.Folds(5, 10), "five of each of two classes do"
    with pytest.raises(DataError, match="8 examples leave 6 to learn from in a fold"):
        compress.folds_for({"subset": {**two["subset"], "per_class": 4}})


def test_five_of_each_class_are_judged_by_folds_that_the_networks_were_made_without() -> None:
    data = {"subset": {"data": {"digits": {}}, "per_class": 5}}
    tree = yaml.safe_load(
        compress.compression_recipe(
            model=({}, [{"networks.vgg": {"plan": [[4]]}}]),
            data=data,
            test=None,
            limits=(compress.parse_limit("macs=1M"),),
            shares=(1, 0.5),
            epochs=1,
        )
    )
    assert "judged by cross-validation over 50 examples" in tree["title"]
    original, fork, chosen, package = tree["steps"]
    branches, choose = fork["fork"], chosen["choose.best"]
    assert choose["among"] == ["macs_1", "macs_0_5_refitted", "macs_0_5_distilled"]
    assert len(branches) == 2 + 2 * 5
    assert tree["data"]["without_3"] == {"fold": {"data": "$all", "folds": 5, "number": 3}}
    for suffix, source in (("", "$all"), ("_without_3", "$without_3")):
        pruned, refitted, fork = branches[f"macs_0_5{suffix}"]
        (quantized,) = fork["fork"][f"macs_0_5_refitted{suffix}"]
        distilled, also_quantized = fork["fork"][f"macs_0_5_distilled{suffix}"]
        assert also_quantized == quantized
        found = [refitted["prune.reconstruct"], distilled["distill.logits"], quantized["quantize.static"]]
        assert [step["data"] for step in found] == [source] * 3, suffix
        assert "validation" not in distilled["distill.logits"], "none is left to stop by"
        assert pruned["prune.best"] == {
            **branches["macs_0_5"][0]["prune.best"],
            "data": refitted["prune.reconstruct"]["data"],
        }
        assert branches[f"macs_1{suffix}"] == [quantized], "the whole network as it is"
    judge = choose["by"]["evaluate.cross_validated"]
    assert judge["without"] == [f"${branch}_without_{number}" for branch in choose["among"] for number in range(5)]
    assert chosen["observe"]["accuracy"] == choose["by"], "what is reported is what was judged by"
    assert original["observe"]["accuracy"] == {"evaluate.accuracy": {"data": "$all"}}
    assert package["export.onnx"] == {"data": "$all"}
    parse_recipe(yaml.safe_dump(tree))


def messy(place: Path, per_class: int, classes: int = 3) -> Path:
    """A folder of digits as users have them: with what notebooks, operating systems and notes leave behind."""
    from PIL import Image

    from mapsto import datasets

    samples = datasets.digits(size=16).open()
    for label in range(classes):
        (place / f"digit {label}").mkdir(parents=True)
        for number, index in enumerate(np.flatnonzero(samples.labels == label)[:per_class]):
            Image.fromarray(samples.inputs[index, 0]).save(place / f"digit {label}" / f"{number}.png")
    (place / ".ipynb_checkpoints").mkdir()
    (place / ".ipynb_checkpoints" / "0.png").write_bytes(b"x")
    (place / "Thumbs.db").write_bytes(b"x")
    (place / "digit 0" / "note.txt").write_text("three of each")
    return place


def of_folder(path: Path, fields: str) -> Path:
    """A recipe whose network is trained on images."""
    path.write_text(
        f"schema: 1\nname: tiny\ndata: {{few: {{images: {{{fields}, size: 16, channels: 1}}}}}}\nsteps:\n"
        "  - networks.vgg: {plan: [[8], [8]], data: $few, classes: data}\n"
        "  - train.supervised: {data: $few, epochs: 8, batch_size: 8, learning_rate: 0.05}\n    as: teacher\n"
    )
    return path


@pytest.mark.slow
@pytest.mark.parametrize("shares", ["1", "1,0.5"])
def test_a_messy_folder_with_few_of_each_class(shares: str, tmp_path: Path) -> None:
    photos, out = messy(tmp_path / "photos", 5, 2), tmp_path / "out"
    recipe = of_folder(tmp_path / "tiny.yaml", f"folder: {messy(tmp_path / 'others', 12, 2)}")
    command = ["compress", str(recipe), str(photos), "--limit", "macs=1M", "--shares", shares, "--epochs", "1"]
    done = mapsto(*command, "--out", str(out), code=0)
    assert "has learnt from these very data" not in done.err
    report = json.loads((out / "report.json").read_text())
    steps = {step["path"]: step for step in report["steps"]}
    judged = steps["chosen.accuracy"]
    accuracy = judged["report"]["metrics"]["accuracy"]
    assert accuracy["n"] == 10, "each of the examples once"
    assert judged["hit"], "what is reported is what the choice was made by"
    (table,) = [table for name, table in judged["report"]["tables"].items() if name == "candidates"]
    expected = ["macs_1", "macs_0_5_refitted", "macs_0_5_distilled"]
    assert [row[0] for row in table["rows"]] == expected[: 2 * len(shares.split(",")) - 1]
    assert accuracy["value"] == max(row[1] for row in table["rows"])
    summary = report["summary"]
    stages = {row[0]: dict(zip(summary["columns"], row, strict=True))["accuracy"] for row in summary["rows"]}
    assert {name: cell["value"] for name, cell in stages.items() if name in expected} == {
        row[0]: row[1] for row in table["rows"]
    }, "no stage is without its accuracy"
    told = any("cannot be told apart" in text for text in steps["chosen"]["warnings"])
    assert told == (len(table["rows"]) > 1 and min(row[1] for row in table["rows"]) >= accuracy["low"])
    (own,) = [
        step for step in report["steps"] if step["digest"] == steps["chosen"]["digest"] and step["path"] in expected
    ]
    assert list(own["fields"]["data"]) == ["images"], "what is packaged was made with all, not with a fold"


@pytest.mark.slow
def test_a_folder_with_a_test_split_and_a_table_with_gaps(tmp_path: Path) -> None:
    import sklearn.datasets

    photos = tmp_path / "photos"
    messy(photos / "train", 12)
    messy(photos / "test", 20)
    recipe = of_folder(tmp_path / "tiny.yaml", f"folder: {photos}, split: train")
    command = ["--limit", "macs=1M", "--shares", "0.5", "--epochs", "4", "--out"]
    done = mapsto("compress", str(recipe), str(photos), *command, str(tmp_path / "a"), code=0)
    assert "has learnt from these very data" in done.err
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    accuracy = {
        step["path"]: step["report"]["metrics"]["accuracy"] for step in report["steps"] if "test" in step["path"]
    }
    assert accuracy["chosen.test"]["n"] == 60
    bunch = sklearn.datasets.load_wine()
    gaps = np.where(np.random.default_rng(0).random(bunch.data.shape) < 0.05, "", bunch.data.astype(str))
    lines = [",".join(bunch.feature_names) + ",kind"]
    lines += [",".join([*row, f"kind {label}"]) for row, label in zip(gaps, bunch.target, strict=True)]
    (tmp_path / "wine.csv").write_text("\n".join(lines))
    wine = tmp_path / "wine.yaml"
    wine.write_text(
        f"schema: 1\nname: wine\ndata: {{rows: {{table: {{file: {tmp_path / 'wine.csv'}, target: kind}}}}}}\nsteps:\n"
        "  - networks.mlp: {data: $rows, widths: [32, 16], classes: data}\n"
        "  - train.supervised: {data: $rows, epochs: 20, batch_size: 32, learning_rate: 0.05}\n"
    )
    table = ["--data", str(tmp_path / "wine.csv"), "--target", "kind"]
    mapsto("compress", str(wine), *table, *command, str(tmp_path / "b"), code=0)
    answers = json.loads(mapsto("predict", str(tmp_path / "b"), str(tmp_path / "wine.csv"), "--json", code=0).out)
    right = sum(row["label"] == f"kind {label}" for row, label in zip(answers, bunch.target, strict=True))
    assert right > 0.9 * len(answers), "its package answers the raw rows, gaps and all"


def test_the_choice_is_made_by_the_latency_that_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each network is timed once: a second measurement, here three times as slow, would be another figure than was judged by."""
    from mapsto.mappings.evaluate.exported import Exported
    from mapsto.run.executor import execute

    timed: list[float] = []

    def times(*_: Any) -> dict[str, Metric]:
        timed.append(0.5 * 3 ** len(timed))
        return {"p50": Metric(value=timed[-1], unit="ms", measured=True)}

    monkeypatch.setattr(Exported, "_times", times)
    run = execute(
        parse_recipe(
            """\
schema: 1
data: {few: {subset: {data: {digits: {size: 16}}, per_class: 3}}}
steps:
  - networks.vgg: {plan: [[4]], data: $few, classes: data}
  - fork: {small: [{prune.magnitude: {macs: 0.5}, as: pruned}]}
  - choose.best: {by: {evaluate.accuracy: {data: $few}}, within: {evaluate.exported: {}}, limits: {p50: 1}}
    as: chosen
    observe: {cost: {evaluate.exported: {}}}
"""
        ),
        store=tmp_path / "store",
    )
    assert run.report("chosen.cost").metrics["p50"].value == 0.5
    assert timed == [0.5]


def test_another_runtime_is_measured_in_and_exported_for() -> None:
    settings = {
        "model": ({}, [{"networks.vgg": {"plan": [[4]]}}]),
        "data": {"subset": {"data": {"digits": {}}, "per_class": 10}},
        "test": None,
        "limits": (compress.parse_limit("latency=1ms"),),
        "shares": (0.5,),
        "epochs": 1,
    }
    tree = yaml.safe_load(compress.compression_recipe(**settings, runtime="openvino"))
    fork, chosen, package = tree["steps"][1:]
    assert fork["fork"]["macs_0_5"][0]["prune.best"]["macs"] == 0.5
    assert chosen["choose.best"]["within"]["evaluate.exported"]["runtime"] == "openvino"
    assert "export.openvino" in package
    assert "export.onnx" in yaml.safe_load(compress.compression_recipe(**settings))["steps"][3]
    with pytest.raises(SpecError, match="there is no runtime 'openvno'; did you mean 'openvino'"):
        compress.compression_recipe(**settings, runtime="openvno")


def test_entries_of_the_networks_own_recipe_stay_what_they_were() -> None:
    own = {"learn": {"glyphs": {}}, "all": {"digits": {}}}
    tree = yaml.safe_load(
        compress.compression_recipe(
            model=(own, [{"networks.vgg": {"data": "$learn", "plan": [[4]]}}]),
            data={"digits": {}},
            test=None,
            limits=(compress.parse_limit("macs=1M"), compress.parse_limit("bytes=30k")),
            shares=(0.5,),
            epochs=1,
        )
    )
    assert tree["steps"][2]["choose.best"]["limits"] == {"macs": 1e6, "bytes": 30000.0}, "all must hold"
    assert {name: tree["data"][name] for name in own} == own
    assert tree["data"]["learn_2"]["subset"]["data"] == "$all", "the same data keep their name"
    refitted, fork = tree["steps"][1]["fork"]["macs_0_5"][1:]
    distilled = fork["fork"]["macs_0_5_distilled"][0]
    assert refitted["prune.reconstruct"]["data"] == distilled["distill.logits"]["data"] == "$learn_2"


LEARNER = """\
schema: 1
name: tiny
data:
  few: {subset: {data: {digits: {size: 16}}, per_class: 20}}
  train_tasks: {episodes: {data: $few, ways: 5, shots: 1, queries: 3}}
steps:
  - networks.conv4: {data: $few, width: 16, blocks: 2}
  - meta.protonet: {tasks: $train_tasks, steps: 40, epoch: 40, tasks_per_step: 1}
    as: learner
"""


@pytest.mark.slow
def test_a_learner_stays_one_that_adapts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPSTO_STORE", str(tmp_path / "store"))
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "out"
    recipe.write_text(LEARNER)
    data = "{subset: {data: {digits: {size: 16}}, per_class: 30}}"
    command = ["compress", str(recipe), "--data", data, "--test", data, "--shares", "0.5", "--out", str(out)]
    done = CliRunner().invoke(app, [*command, "--epochs", "1", "--limit", "macs=1M"])
    assert done.exit_code == 0, done.output
    assert f"mapsto adapt {out} " in done.output
    assert "mapsto predict" not in done.output, "it wants examples first"
    report = json.loads((out / "report.json").read_text())
    assert [(step["name"], step["label"]) for step in report["steps"] if "macs_0_5" in str(step["label"])] == [
        ("prune.meta", "macs_0_5_pruned"),
        ("prune.reconstruct", "macs_0_5_refitted_float"),
        ("quantize.static", "macs_0_5_refitted"),
        ("distill.meta", "macs_0_5_distilled_float"),
        ("quantize.static", "macs_0_5_distilled"),
    ]
    accuracy = {
        step["path"]: step["report"]["metrics"]["accuracy"]["value"]
        for step in report["steps"]
        if "accuracy" in step["path"]
    }
    assert accuracy["chosen.accuracy"] > 60, "of five classes that no branch was trained with"
    assert all(target["met"] for target in report["targets"])
    manifest = json.loads((out / "package" / "manifest.json").read_text())
    rule = {"method": "centroid", "scale": manifest["adaptation"]["head"]["scale"], "distance": "euclidean"}
    assert manifest["adaptation"] == {"learner": "learner/", "method": "centroid", "model": "adapt.onnx", "head": rule}


def test_learners_of_other_tasks_and_too_few_classes_are_refused() -> None:
    settings = {"test": None, "limits": (compress.parse_limit("macs=1M"),), "shares": (0.5,), "epochs": 1}
    steps = [{"networks.mlp": {"inputs": 1}}, {"meta.maml": {"tasks": {"sinusoids": {}}}}]
    with pytest.raises(SpecError, match="not drawn from labelled classes; compress it by a recipe"):
        compress.compression_recipe(model=({}, steps), data={"digits": {}}, **settings)
    with pytest.raises(DataError, match=r"9 classes are too few.*with 10 classes or more"):
        compress.held_out_classes({"subset": {"data": {"digits": {}}, "classes": list("012345678")}})
    adapted = [*steps, {"adapt.centroid": {"data": {"digits": {}}}}]
    text = compress.compression_recipe(model=({}, adapted), data={"digits": {}}, **settings)
    assert "prune.best" in text, "adapted, it is a classifier"


@pytest.mark.slow
def test_the_best_network_within_the_target_is_exported_without_what_is_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAPSTO_STORE", str(tmp_path / "store"))
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "out"
    recipe.write_text(RECIPE)
    command = ["compress", str(recipe), "--data", DIGITS, "--epochs", "4", "--shares", "0.5,0.01", "--out", str(out)]
    done = mapsto(*command, "--limit", "bytes=4.6kB", "--json", code=0)
    assert (
        "branch 'macs_0_01' is left out of the choice: prune.best: the budget macs = 0.01 is out of reach" in done.err
    )
    report = json.loads((out / "report.json").read_text())
    sizes = {step["label"]: step for step in report["steps"]}
    ends = [sizes[name]["digest"] for name in ("macs_0_5_refitted", "macs_0_5_distilled")]
    assert sizes["chosen"]["digest"] in ends, "the whole network's file has more than 4.6 kB"
    assert sizes["macs_0_01_pruned"]["failed"]
    assert not sizes["macs_0_01_pruned"]["digest"]
    assert [each["path"] for each in report["warnings"] if "is left out" in each["text"]] == ["macs_0_01_pruned"]
    assert "left out</span>" in (out / "report.html").read_text()
    assert all(target["met"] for target in report["targets"])
    on_disk = (out / "package" / "model.onnx").stat().st_size
    assert on_disk <= 4600
    assert report["targets"][0]["measured"] == on_disk, "the file is judged, and what is judged is reported"
    written = yaml.safe_load((out / "recipe.yaml").read_text())
    assert written["data"]["learn"]["subset"]["part"] == "rest"
    with pytest.raises(MapstoError, match=r"the smallest reached is \d+ \(branch 'macs_0_5"):
        CliRunner().invoke(app, [*command, "--limit", "bytes=10"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--limit", "latency=1ms", "--shares", "2"], "'2' is not a list of different shares"),
        (["--limit", "latency=1"], "'1' is no limit on latency"),
        (["--limit", "latency=1ms", "--step", "nobody"], "there is no step 'nobody'"),
        (["--target", "latency=1ms"], "write --limit latency=1ms"),
        (["--limit", "macs=1M", "--limit", "macs=2M"], "two limits are on the same cost"),
        ([], "no limit is given; as in --limit latency=0.5ms"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(
    more: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["mapsto", "compress", "demo", "--data", "digits", "--out", str(out), *more])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(out.glob("*"))


def test_what_a_run_says_of_its_original() -> None:
    def step(path: str, **values: float | tuple[float, float, float]) -> dict[str, Any]:
        metrics = {
            name: dict(
                zip(("value", "low", "high"), value if isinstance(value, tuple) else (value, None, None), strict=True)
            )
            | {"unit": ""}
            for name, value in values.items()
        }
        return {"path": path, "report": {"metrics": metrics}}

    steps = [
        step("big.cost", bytes=900.0),
        step("big.accuracy", accuracy=(30.0, 9.0, 40.0)),
        step("chosen.cost", bytes=500.0),
    ]
    targets = [{"metric": "chosen.cost.bytes", "goal": "<= 1000"}]
    within, chance = compress.said_of_original({"steps": steps, "targets": targets}, {"digits": {}})
    assert "within the limits as it is (bytes 900)" in within
    assert "which may be chance (10 %)" in chance
    targets[0]["goal"] = "<= 800"
    steps[1] = step("big.accuracy", accuracy=(30.0, 20.0, 40.0))
    assert compress.said_of_original({"steps": steps, "targets": targets}, {"digits": {}}) == []


def spoilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on distillation ruins a network: its learning rate is far too high."""
    plan_of = compress._of_classifiers

    def plan(*given: Any) -> Any:
        found = plan_of(*given)
        name, fields = found.distil
        return dataclasses.replace(found, distil=(name, {**fields, "learning_rate": 3.0}))

    monkeypatch.setattr(compress, "_of_classifiers", plan)


@pytest.mark.slow
def test_what_distillation_ruins_is_not_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt(monkeypatch)
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "out"
    recipe.write_text(RECIPE.replace("epochs: 8", "epochs: 30"))  # good enough to be ruined
    command = ["compress", recipe, "--data", DIGITS, "--epochs", "1", "--shares", "0.7", "--limit", "bytes=5.5kB"]
    mapsto(*command, "--out", out, "--store", tmp_path / "store", code=0)
    steps = {step["path"]: step for step in json.loads((out / "report.json").read_text())["steps"]}
    assert steps["chosen"]["digest"] == steps["macs_0_7_refitted"]["digest"]
    refitted, distilled = (
        steps[f"macs_0_7_{how}.accuracy"]["report"]["metrics"]["accuracy"]["value"] for how in ("refitted", "distilled")
    )
    assert refitted > distilled + 20


FORK = """\
schema: 1
data: {few: {subset: {data: {digits: {size: 16}}, per_class: 3}}}
steps:
  - networks.vgg: {plan: [[8]], data: $few, classes: data}
  - fork:
      half: [{prune.magnitude: {macs: 0.5}}]
      nothing: [{prune.magnitude: {macs: 0.001}}, {fork: {inner: {quantize.bf16: {}}}}]
"""


def test_a_choice_goes_on_without_branches_that_cannot_be_made(tmp_path: Path) -> None:
    from mapsto.errors import DomainError, StepError
    from mapsto.run.executor import execute

    by = "{evaluate.size: {}}"
    chosen = f"{FORK}  - choose.best: {{by: {by}, metric: parameters, maximize: false, among: [inner, half]}}\n"
    recipe = parse_recipe(chosen)
    run = execute(recipe, store=tmp_path / "store")
    assert run.steps[-1].digest == next(step.digest for step in run.steps if step.label == "half")
    ((path, text),) = [each for each in run.warnings if "left out" in each[1]]
    assert path == "prune.magnitude"
    assert "branch 'nothing' is left out" in text
    assert recipe.steps(None).signature.classes is not None, "in memory too"
    referred = chosen + "  - distill.logits: {teacher: $inner, data: $few, epochs: 1}\n"
    with pytest.raises(
        StepError, match=r"'inner' was left out: prune.magnitude: the budget macs = 0.001 is out of reach"
    ):
        execute(parse_recipe(referred), store=tmp_path / "store")
    alone = chosen.replace("half: [{prune.magnitude: {macs: 0.5}}]", "half: [{prune.magnitude: {macs: 0.002}}]")
    with pytest.raises(StepError, match="out of reach") as ended:
        execute(parse_recipe(alone), store=tmp_path / "store")
    assert ended.value.exit_code == 2, "none is left"
    only = chosen.replace("[inner, half]", "[inner]")
    with pytest.raises(StepError, match="every branch that there was to choose from is left out"):
        execute(parse_recipe(only), store=tmp_path / "store")
    picked = FORK + "  - choose.branch: {label: half}\n"
    with pytest.raises(StepError, match="out of reach"):
        execute(parse_recipe(picked), store=tmp_path / "store")
    with pytest.raises(DomainError, match="out of reach"):
        parse_recipe(picked).steps(None)
    with pytest.raises(
        SpecError, match=r"takes the branch 'innre', which is none of its branches .did you mean 'inner'"
    ):
        parse_recipe(chosen.replace("inner, half", "innre, half"))


def test_a_candidate_of_which_a_fold_was_left_out_is_left_out_too(tmp_path: Path) -> None:
    from mapsto.run.executor import execute

    half, third = "{prune.magnitude: {macs: 0.5}}", "{prune.magnitude: {macs: 0.35}}"
    text = f"""\
schema: 1
data: {{few: {{subset: {{data: {{digits: {{size: 16}}}}, per_class: 3}}}}}}
steps:
  - networks.vgg: {{plan: [[8]], data: $few, classes: data}}
  - fork:
      {{a: {half}, b: {third}, a_0: {half}, a_1: {half}, b_0: {third}, b_1: {{prune.magnitude: {{macs: 0.001}}}}}}
  - choose.best:
      by: {{evaluate.cross_validated: {{data: $few, folds: 2, candidates: {{a: $a, b: $b}}, without: [$a_0, $a_1, $b_0, $b_1]}}}}
      among: [b, a]
"""
    run = execute(parse_recipe(text), store=tmp_path / "store")
    assert run.steps[-1].digest == next(step.digest for step in run.steps if step.label == "a")
    (said,) = [text for path, text in run.warnings if path == "choose.best" and "left out" in text]
    assert "branch 'b' is left out of the choice: 'b_1' was left out" in said


def test_the_recipe_for_a_network_of_maps_reads_no_labels() -> None:
    from mapsto.kinds import Signature
    from mapsto_runtime.signature import Preprocessing, TensorSpec

    def recipe(*shape: int, classes: tuple[str, ...] | None = None) -> Any:
        signature = Signature(
            inputs=(TensorSpec(name="input", dtype="float32", shape=("N", 3, 16, 16)),),
            outputs=(TensorSpec(name="output", dtype="float32", shape=("N", *shape)),),
            preprocessing=Preprocessing(kind="none"),
            classes=classes,
        )
        text = compress.compression_recipe(
            model=({}, [{"networks.checkpoint": {"factory": "a:b", "file": "c"}}]),
            data={"subset": {"data": {"digits": {}}, "per_class": 5}},
            test=None,
            limits=(compress.parse_limit("macs=1M"),),
            shares=(0.5,),
            epochs=1,
            signature=signature,
        )
        return yaml.safe_load(text)

    tree = recipe(3, 16, 16, classes=("sky", "sea", "land"))
    original, fork, chosen, package = tree["steps"]
    assert list(original["observe"]) == ["cost"]
    distilled = fork["fork"]["macs_0_5"][2]["fork"]["macs_0_5_distilled"][0]["distill.logits"]
    assert (distilled["alpha"], distilled["data"], distilled["validation"]) == (1, "$learn", "$check")
    assert tree["data"]["check"] == {"fold": {"data": "$all", "folds": 5, "part": "judge"}}
    judge = {"evaluate.difference": {"teacher": "$original", "data": "$check"}}
    best = chosen["choose.best"]
    assert (best["by"], best["metric"], best["maximize"]) == (judge, "agreement", True)
    assert chosen["observe"]["agreement"] == judge
    assert package["export.onnx"] == {"data": "$check"}
    best = recipe(1, 16, 16)["steps"][2]["choose.best"]
    assert (best["metric"], best["maximize"]) == ("euclidean", False)
    with pytest.raises(
        SpecError, match="neither one answer nor a map of channels, height and width; compress it by a recipe"
    ):
        recipe(12, 40)


@pytest.mark.slow
def test_a_network_of_maps_is_kept_near_to_its_own_answers(tmp_path: Path) -> None:
    import torch
    from tests.foreign import Noise, UNet

    torch.manual_seed(0)
    module = UNet()
    inputs = Noise(shape=(3, 16, 16), classes=3, count=40).open().inputs
    module.train()(torch.from_numpy(inputs))
    torch.save(module.eval().state_dict(), tmp_path / "unet.pt")
    np.savez(tmp_path / "data.npz", inputs=inputs, labels=np.zeros(40, np.int64))
    out = tmp_path / "out"
    command = ["compress", f"tests.foreign:UNet={tmp_path / 'unet.pt'}", tmp_path / "data.npz", "--trust", "tests"]
    command += ["--limit", "macs=300k", "--shares", "0.5", "--epochs", "2", "--store", tmp_path / "store", "--out", out]
    mapsto(*command, code=0)
    report = json.loads((out / "report.json").read_text())
    steps = {step["path"]: step for step in report["steps"]}
    assert steps["macs_0_5_distilled_float"]["fields"]["alpha"] == 1
    near = {
        path: step["report"]["metrics"]["euclidean"]["value"] for path, step in steps.items() if ".euclidean" in path
    }
    within = [near[f"macs_0_5_{how}.euclidean"] for how in ("refitted", "distilled")]
    assert near["chosen.euclidean"] == min(within) > near["macs_1.euclidean"], "the whole network costs too much"
    assert all(target["met"] for target in report["targets"])
    assert "euclidean" in report["summary"]["columns"]
    manifest = json.loads((out / "package" / "manifest.json").read_text())
    assert manifest["signature"]["outputs"][0]["shape"] == ["N", 3, 16, 16]
