"""Every step that may ruin a network is compared with what it was given; what it lost is said, once and on the right data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mapsto import datasets, distill, export, networks, prune, quantize, train
from mapsto.mapping import Mapping, fork, ref
from mapsto.nn.profile.comparison import agreement
from mapsto.report.build import build
from mapsto.run.executor import execute
from mapsto.run.result import RunResult
from mapsto.run.verdict import grounds, judged

LEARN = datasets.subset(data=datasets.digits(size=8), per_class=30)
REST = datasets.subset(data=datasets.digits(size=8), per_class=30, part="rest")
CHECK = datasets.subset(data=REST, per_class=30)


def trained(**more: Any) -> Mapping[Any, Any]:
    learn = train.supervised(data=LEARN, epochs=20, batch_size=30, learning_rate=0.05, **more)
    return networks.conv4(data=LEARN, classes="data", width=8, blocks=2) >> learn.labelled("big")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all, so that the network is trained once."""
    return tmp_path_factory.mktemp("store")


def said(run: RunResult) -> list[tuple[str, str]]:
    return [(path, text) for path, text in run.warnings if "compared with what" in text]


def ends(run: RunResult) -> list[str]:
    return [text for _, text in run.warnings if "at the end of the recipe" in text]


@pytest.mark.slow
def test_a_ruined_network_is_told_by_accuracy_where_an_earlier_step_validates(store: Path) -> None:
    big = trained(validation=CHECK)
    whole = execute(big >> prune.magnitude(macs=0.95) >> quantize.static(data=LEARN, samples=64), store=store)
    assert said(whole) == []
    kept = whole.steps[-1].comparison["given"]
    assert (kept["on"], kept["n"]) == ("validation data", 300)
    assert kept["accuracy"]["before"] > 90
    cut = execute(big >> prune.random(macs=0.1), store=store)
    path, text = said(cut)[-1]
    lost = cut.steps[-1].comparison["given"]["accuracy"]
    assert path == "prune.random"
    assert f"accuracy fell from {lost['before']:.1f} to {lost['after']:.1f} % on 300 samples of validation data" in text
    assert lost["before"] - lost["after"] > 20
    again = execute(big >> prune.random(macs=0.1), store=store)
    assert again.steps[-1].hit
    assert again.warnings == cut.warnings
    step = build(again)["steps"][-1]
    assert step["warnings"][-1] == text
    assert step["comparison"]["given"]["accuracy"] == lost


def test_without_validation_the_answers_are_compared_on_calibration_inputs(store: Path) -> None:
    run = execute(trained() >> quantize.static(data=LEARN, samples=64, bits=2), store=store)
    ((_, text),) = said(run)
    given = run.steps[-1].comparison["given"]
    assert "accuracy" not in given
    assert given["on"] == "calibration inputs"
    assert f"gives the same class for {given['agreement']:.1f} %" in text
    assert given["agreement"] < 90


def test_what_training_follows_is_a_note_and_the_end_is_judged(store: Path) -> None:
    big = trained(validation=CHECK)
    cut = prune.random(macs=0.1)
    mended = prune.random(macs=0.85) >> distill.logits(
        teacher=ref("big"), data=LEARN, epochs=30, batch_size=30, learning_rate=0.01, schedule="onecycle"
    )
    well = execute(big >> mended, store=store)
    assert well.warnings == []
    assert [path for path, text in well.notes if "training follows" in text] == ["prune.random"]
    barely = distill.logits(teacher=ref("big"), data=LEARN, epochs=1, learning_rate=1e-5)
    badly = execute(big >> cut >> barely, store=store)
    assert said(badly) == []
    (text,) = ends(badly)
    assert text.startswith("accuracy fell from")
    assert ends(execute(big >> cut >> barely, store=store)) == [text]


@pytest.mark.slow
def test_an_export_and_a_chosen_branch_are_judged_too(store: Path) -> None:
    from mapsto import choose, evaluate

    branches = fork(hard=prune.random(macs=0.1), mild=prune.magnitude(macs=0.95))
    best = choose.best(by=evaluate.accuracy(data=CHECK, pictures=0))
    run = execute(trained(validation=CHECK) >> branches >> best >> export.onnx(data=CHECK), store=store)
    fallen = [path for path, text in run.warnings if "accuracy fell" in text]
    assert fallen == ["hard"]
    assert {path for path, _ in run.warnings} == {"hard"}
    exported = run.steps[-1].comparison["given"]
    assert exported["agreement"] == 100
    assert exported["n"] == 200


def test_what_cannot_be_measured_is_said_once(store: Path) -> None:
    bare = networks.mlp(inputs=8, classes=3, widths=(16,))
    run = execute(bare >> prune.magnitude(macs=0.8) >> prune.magnitude(macs=0.9), store=store)
    assert run.warnings == []
    assert [text for _, text in run.notes if "could not be measured" in text] == [
        "what this step changed could not be measured: neither it nor a step before it has data"
    ]


def test_test_data_are_never_used() -> None:
    mapping = prune.magnitude(macs=0.5)
    unseen = train.supervised(data=datasets.cifar10(split="test"), validation=datasets.cifar10(split="test"))
    assert list(grounds(mapping, [unseen])) == []
    own = quantize.static(data=datasets.subset(data=datasets.cifar10(split="test"), per_class=3))
    assert [ground.labelled for ground in grounds(own, [])] == [False]


@pytest.mark.parametrize(
    ("drop", "se", "warned"), [(1.9, 0.1, False), (2.5, 0.5, False), (2.5, 1.3, False), (2.7, 1.3, True), (9, 1, True)]
)
def test_the_limit_of_a_fall(drop: float, se: float, warned: bool) -> None:
    accuracy = {"of": "accuracy", "before": 90.0, "after": 90.0 - drop, "drop": drop, "se": se}
    found = {"on": "validation data", "n": 400, "agreement": 50.0, "answers": "classes", "accuracy": accuracy}
    assert (judged(found, followed=False) is not None) is (warned or (drop == 2.5 and se == 0.5))


def test_agreement_is_by_what_the_outputs_are() -> None:
    draw = torch.Generator().manual_seed(0)
    one, other = torch.randn(200, 6, generator=draw), torch.randn(200, 6, generator=draw)
    for answers in ("classes", "labels", "values", "embeddings"):
        assert agreement(one, one, answers) == pytest.approx(100)
        assert agreement(one, other, answers) < 60
    rare = torch.full((50, 4), -1.0)
    rare[0, 0] = 1.0
    assert agreement(rare, torch.full((50, 4), -1.0), "labels") == 0
    maps = torch.randn(400, 1, 6, 6, generator=draw)
    assert agreement(maps, 0.9 * maps, "maps") == pytest.approx(99, abs=0.1)
    assert agreement(maps, -maps, "maps") == 0
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=draw))
    assert agreement(one, torch.cat([one @ turn, torch.zeros(200, 2)], 1), "embeddings") == pytest.approx(100)
    positive, unlike = one.abs() + 5, other.abs() + 5
    assert agreement(positive, unlike, "embeddings") < 50
