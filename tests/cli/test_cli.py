"""The command line as its user meets it; a process of its own where that is what matters, for each takes seconds to start."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from tests.command import Done
from tests.command import mapsto as command

from mapsto import discovery
from mapsto.cli.doctor import doctor_report, extras

RECIPE = """\
schema: 1
title: a small one
data:
  digits: {subset: {data: {digits: {size: 16}}, per_class: 8}}
steps:
  - networks.conv4: {channels: 1, size: 16, width: 8}
  - train.supervised: {data: $digits, epochs: 2, batch_size: 16}
    as: teacher
    observe: {digits: {evaluate.accuracy: {data: $digits}}}
  - prune.magnitude: {macs: 0.5}
    as: small
    observe: {digits: {evaluate.accuracy: {data: $digits}}, size: {evaluate.size: {baseline: $teacher}}}
  - export.onnx: {}
quick: {teacher.epochs: 1}
targets:
  - {what: fewer MACs, metric: small.size.macs_ratio, goal: ">= 1.5"}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAPSTO_STORE", str(tmp_path / "store"))
    (tmp_path / "small.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def mapsto(*arguments: str, code: int = 0) -> Done:
    return command(*arguments, code=code)


def process(*arguments: str, given: bytes = b"") -> str:
    """What a process prints."""
    done = subprocess.run(
        [sys.executable, "-m", "mapsto", *arguments],
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        input=given,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
    assert b"Traceback" not in done.stderr
    return done.stdout.decode()


@pytest.mark.slow
def test_run_twice_then_predict_report_and_store(here: Path) -> None:
    plan = json.loads(mapsto("run", "small.yaml", "--plan", "--json").out)
    assert {row["status"] for row in plan} == {"would run"}
    assert {row["seconds"] for row in plan} == {None}
    told = mapsto("run", "small.yaml", "--plan").out
    assert "not timed yet" in told
    assert "how long it takes is not known: no such step was timed yet; nothing was run" in told
    first = json.loads(process("run", "small.yaml", "--json"))
    assert first["targets"][0]["met"] is True
    assert (here / "runs/small/report.html").read_text(encoding="utf-8").startswith("<!doctype html")
    assert (here / "runs/small/package/manifest.json").is_file()
    logs = here / "runs/small/logs"
    assert list(logs.rglob("metrics.csv"))
    assert list(logs.rglob("events.out.tfevents.*"))
    second = mapsto("run", "small.yaml")
    assert "from the store" in second.err
    assert "fewer MACs" in second.out
    digests = [step["digest"] for step in json.loads((here / "runs/small/report.json").read_text())["steps"]]
    assert digests == [step["digest"] for step in first["steps"]]

    from PIL import Image
    from sklearn.datasets import load_digits

    picture = here / "digit.png"
    Image.fromarray((load_digits().images[0] * 15).astype("uint8")).resize((64, 64)).save(picture)
    rows = json.loads(mapsto("predict", "runs/small", str(picture), "--json").out)
    assert rows[0]["label"] in set("0123456789")
    piped = json.loads(process("predict", "runs/small", "-", "--json", given=picture.read_bytes()))
    assert piped[0]["label"] == rows[0]["label"]

    mapsto("run", "small.yaml", "--quick", "--out", "runs/quick")
    compared = json.loads(mapsto("report", "runs/small", "runs/quick", "--json").out)
    assert {"a", "b", "difference"} <= set(compared[0])
    assert "teacher" in mapsto("report", "runs/small").out
    assert len(json.loads(mapsto("store", "ls", "--json").out)) >= 6
    assert "every artifact" in mapsto("store", "verify").out
    assert json.loads(mapsto("store", "gc", "--json").out)["files"] >= 0
    assert json.loads(mapsto("store", "index", "--json").out)["runs"] == 3


def test_torch_is_not_imported_when_all_are_hits(here: Path) -> None:
    mapsto("run", "small.yaml")
    code = (
        "import sys; sys.argv = ['mapsto', 'run', 'small.yaml', '--json']\n"
        "from mapsto.cli.main import main\ntry: main()\n"
        "finally: sys.stderr.write('torch=' + str('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch=False" in done.stderr


@pytest.mark.slow
def test_seeds_give_a_mean(here: Path) -> None:
    report = json.loads(mapsto("run", "small.yaml", "--quick", "--seeds", "0,1,2", "--json").out)
    pooled = report["seeds"]["metrics"]["teacher.digits.accuracy"]
    assert len(pooled["values"]) == 3
    assert pooled["ci95"] is not None
    assert (here / "runs/small/seed-2/report.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "nowhere.yaml"), "there is no recipe"),
        (("run", "small.yaml", "--set", "techer.epochs=3"), "did you mean 'teacher'"),
        (("run", "small.yaml", "--set", "teacher.epochs=none of it"), "epochs"),
        (("run", "small.yaml", "--set", "nonsense"), "label.field=value"),
        (("run", "small.yaml", "--seeds", "0,0"), "different whole numbers"),
        (("run", "small.yaml", "--seed", "1", "--seeds", "0,1"), "exclude"),
        (("run", "small.yaml", "--out", "/proc/nothing"), "cannot write"),
        (("run", "small.yaml", "--store", "/proc/nothing"), "store"),
        (("run",), "recipe"),
        (("runn",), "runn"),
        (("show", "prune.talyor"), "did you mean 'prune.taylor'"),
        (("predict", "nowhere", "x.png"), "manifest.json"),
        (("report", "nowhere"), "no report"),
        (("list", "zzz"), "nothing is called"),
        (("comprss",), "did you mean 'compress'?; see mapsto --help"),
        (
            ("compress", "--shars", "1"),
            "there is no option '--shars'; did you mean '--shares'?; see mapsto compress --help",
        ),
        (("show", "taylr"), "did you mean 'prune.taylor' or"),
        (
            ("show", "best"),
            "'best' is the last word of 4 names; give one of adapt.best, choose.best, export.best, prune.best",
        ),
        (("new", "small"), "exists already"),
    ],
)
def test_mistakes_exit_with_2_and_a_remedy(here: Path, arguments: tuple[str, ...], message: str) -> None:
    done = mapsto(*arguments, code=2)
    assert message in done.err
    assert not (here / "runs").exists() or not list((here / "runs").rglob("report.json"))


def test_show_says_fields_and_ranges(here: Path) -> None:
    text = mapsto("show", "prune.magnitude").out
    assert "Network → Network" in text
    assert "macs" in text
    tree = json.loads(mapsto("show", "prune.magnitude", "--json").out)
    assert {"name", "schema", "description"} <= set(tree["fields"][0])
    assert "schema: 1" in mapsto("show", "demo").out
    assert mapsto("show", "vgg").out == mapsto("show", "networks.vgg").out


def test_a_list_of_one_kind(here: Path) -> None:
    rows = json.loads(mapsto("list", "recipes", "--json").out)
    assert {row["group"] for row in rows} == {"recipe"}
    assert "demo" in {row["name"] for row in rows}
    assert {row["group"] for row in json.loads(mapsto("list", "data", "--json").out)} == {"data"}


def test_list_names_everything_without_importing_torch(here: Path) -> None:
    rows = json.loads(mapsto("list", "--json").out)
    assert {row["name"] for row in rows} >= {*discovery.entries("mappings"), *discovery.entries("data")}
    assert all(row["summary"] for row in rows)
    code = (
        "import sys, mapsto.cli, mapsto.discovery as d\nd.entries('mappings')\n"
        "print(any(m in sys.modules for m in ('torch', 'pydantic', 'numpy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_command_has_help_with_an_example(here: Path) -> None:
    for words in (
        "run",
        "list",
        "show",
        "new",
        "predict",
        "report",
        "bench",
        "doctor",
        "lock",
        "store ls",
        "store gc",
        "store verify",
        "store index",
    ):
        assert "Example: mapsto" in mapsto(*words.split(), "--help").out


def test_a_benchmark_refuses_what_it_does_not_know(here: Path) -> None:
    assert "'engine' runs on the CPU alone" in mapsto("bench", "engine", "--device", "cuda", code=2).err
    assert "'engine' has no rows to choose from" in mapsto("bench", "engine", "--only", "x", code=2).err
    if not torch.cuda.is_available():
        assert "does not work here" in mapsto("bench", "meta_speed", "--device", "cuda", code=2).err


def test_doctor(here: Path) -> None:
    tree = json.loads(mapsto("doctor", "--json").out)
    assert set(tree) == {"Packages", "Devices", "Extras", "Data", "Store"}


def test_new_writes_a_valid_recipe(here: Path) -> None:
    mapsto("new", "mine", "--from", "demo")
    assert "name: mine" in (here / "mine.yaml").read_text(encoding="utf-8")


def test_doctor_lists_every_extra_that_there_is() -> None:
    declared = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text(encoding="utf-8"))
    there = declared["project"]["optional-dependencies"]
    known = extras()
    assert set(known) == set(there)
    for extra, needs in there.items():
        assert sorted(re.match(r"[\w.-]+", need)[0] for need in needs) == sorted(known[extra])  # type: ignore[index]
    assert doctor_report()["Extras"].keys() == known.keys()
