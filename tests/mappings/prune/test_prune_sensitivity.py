"""How much each layer's pruning costs, and budgets spread by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.mappings.prunable import DATA, TASKS, Odd, changed, context, importance, vgg, widths

from mapsto.context import Context
from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Network, Report, Table
from mapsto.mapping import Mapping
from mapsto.mappings.evaluate.sensitivity import Sensitivity as Drops
from mapsto.mappings.evaluate.size import Size
from mapsto.mappings.prune.magnitude import Magnitude
from mapsto.mappings.prune.random import Random
from mapsto.mappings.prune.sensitivity import Sensitivity
from mapsto.mappings.prune.taylor import Taylor
from mapsto.mappings.train.supervised import Supervised
from mapsto.nn.network.preprocess import prepare
from mapsto.nn.profile.counts import count_macs
from mapsto.nn.prune.layer_sensitivity import levels
from mapsto.recipe.reader import parse_recipe
from mapsto.run.executor import execute


@pytest.fixture(scope="module")
def trained() -> Network:
    return Supervised(data=DATA, epochs=15, batch_size=16).apply(vgg((8,), (12,)), context())


def accuracy(network: Network, without: dict[str, list[int]] | None = None) -> float:
    """Accuracy (%), with some inputs of some layers ignored."""
    samples, module = DATA.open(), network.module()
    tensors = dict(module.named_parameters())
    with torch.no_grad():
        for name, places in (without or {}).items():
            tensors[name][:, places] = 0
        outputs = module(prepare(samples.inputs, network.signature.preprocessing))
    return 100 * float((outputs.argmax(1).numpy() == samples.labels).mean())


def test_the_drops_are_those_of_ignoring_the_channels(trained: Network) -> None:
    report = Drops(data=DATA, ratios=(0.5, 0.25))(trained)
    table = report.tables["sensitivity"]
    assert table.columns[:4] == ("layer", "channels", "25 %", "50 %")
    assert [row[:2] for row in table.rows] == [("features.0", 8), ("features.4", 12)]
    norms = importance(Magnitude(macs=0.5), trained)
    readers = {"features.0": "features.4.weight", "features.4": "classifier.weight"}
    for layer, channels, *drops in table.rows:
        for ratio, drop in zip((0.25, 0.5), drops[:2], strict=True):
            gone = np.argsort(norms[layer])[: int(ratio * channels)]
            expected = accuracy(trained) - accuracy(trained, {readers[layer]: gone.tolist()})
            assert drop == pytest.approx(expected, abs=1e-2)
    assert report.metrics["accuracy"].value == pytest.approx(accuracy(trained))
    assert report.metrics["accuracy"].n == len(DATA.open())
    worst = max(max(row[2:4]) for row in table.rows)
    assert report.metrics["worst_drop"].value == pytest.approx(worst, abs=1e-2)
    (series,) = report.series.values()
    assert series.x == (0.0, 25.0, 50.0)
    assert series.ys["features.0"] == (0.0, *(pytest.approx(drop, abs=1e-2) for drop in table.rows[0][2:4]))


def test_the_interval_is_paired(trained: Network) -> None:
    row = Drops(data=DATA, ratios=(0.5,))(trained).tables["sensitivity"].rows[0]
    n, p = len(DATA.open()), row[2] / 100
    least = 196 * np.sqrt(abs(p) * (1 - abs(p)) / (n - 1))  # where no answer changed from wrong to right
    assert row[3] >= least * 0.99


def test_of_a_learner_on_tasks() -> None:
    learner = vgg((8,), (8,), classes=None)
    report = Drops(tasks=TASKS, episodes=20, criterion=Random(macs=0.5))(learner)
    assert [row[0] for row in report.tables["sensitivity"].rows] == ["features.0"]
    wider = Drops(tasks=TASKS, episodes=20, criterion=Random(macs=0.5, prune_embedding=True))(learner)
    assert [row[0] for row in wider.tables["sensitivity"].rows] == ["features.0", "features.4"]
    assert report.metrics["accuracy"].n == 20


def test_at_most_so_many_samples_and_curves(trained: Network) -> None:
    report = Drops(data=DATA, samples=20, curves=1)(trained)
    assert report.metrics["accuracy"].n == 20
    (series,) = report.series.values()
    worst = max(report.tables["sensitivity"].rows, key=lambda row: max(row[2:5]))
    assert list(series.ys) == [worst[0]]


def test_a_budget_goes_where_it_costs_least(trained: Network) -> None:
    unread = trained.tensors["classifier.weight"].clone()
    unread[:, ::2] = 0  # half of the second layer's channels are read by nothing
    network = changed(trained, classifier__weight=unread)
    criterion = Taylor(data=DATA, parameters=0.6, ranking="per_layer")
    small = Sensitivity(criterion=criterion, by=Drops(data=DATA, criterion=criterion, ratios=(0.25, 0.5, 0.75)))(
        network
    )
    even = criterion(network)
    assert widths(small)[0] > widths(even)[0]
    assert widths(small)[1] < widths(even)[1]
    assert accuracy(small) > accuracy(even)
    x = torch.zeros(1, 1, 8, 8)
    assert count_macs(small.module(), x) < count_macs(network.module(), x)


class Told(Mapping[Network, Report]):
    """A report that says what it is told."""

    first: float = 0.0
    """Drop of the first layer at 50 %."""
    layers: tuple[str, ...] = ("features.0", "features.4")
    """Which layers it knows."""

    def apply(self, value: Network, ctx: Context) -> Report:
        rows = tuple((name, 8, 100.0 if number else self.first) for number, name in enumerate(self.layers))
        return Report(tables={"sensitivity": Table(columns=("layer", "channels", "50 %"), rows=rows)})


def test_any_report_with_such_a_table_will_do(trained: Network) -> None:
    criterion = Magnitude(macs=0.55, max_prune=0.5)
    assert widths(Sensitivity(criterion=criterion, by=Told(first=0.0))(trained)) == [4, 12]
    given_up = widths(Sensitivity(criterion=criterion, by=Told(first=100.0))(trained))
    assert given_up[0] > 4


def test_what_is_given_is_checked(trained: Network) -> None:
    with pytest.raises(SpecError, match=r"criterion is evaluate.size, which ranks no channels.*prune.magnitude"):
        Sensitivity(criterion=Size(), by=Drops(data=DATA))
    with pytest.raises(SpecError, match=r"by is prune.magnitude, which gives Network, not a Report"):
        Sensitivity(criterion=Magnitude(macs=0.5), by=Magnitude(macs=0.5))
    with pytest.raises(SpecError, match=r"criterion is train.supervised"):
        Drops(data=DATA, criterion=Supervised(data=DATA))
    with pytest.raises(SpecError, match="either data or tasks"):
        Drops()
    for ratios in ((), (0.0,), (1.0,), (0.5, 1.5)):
        with pytest.raises(SpecError, match="ratios"):
            Drops(data=DATA, ratios=ratios)
    with pytest.raises(DomainError, match=r"no drops of features.4.*same criterion"):
        Sensitivity(criterion=Magnitude(macs=0.5), by=Told(layers=("features.0",)))(trained)
    with pytest.raises(DomainError, match="no table 'sensitivity'"):
        Sensitivity(criterion=Magnitude(macs=0.5), by=Size())(trained)
    with pytest.raises(DomainError, match=r"macs = 0.001 is out of reach: the smallest is"):
        Sensitivity(criterion=Magnitude(macs=0.001), by=Told())(trained)


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("nan", DataError, "row 3 holds nan"),
        ("empty", DataError, "not one sample"),
        ("one", DataError, "one sample, at least 2"),
        ("numbers", DataError, "one class for each sample"),
        ("two", DomainError, "network of 10 outputs, the data has 2 classes"),
    ],
)
def test_data_that_does_not_fit_is_refused(trained: Network, what: str, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        Drops(data=Odd(what=what))(trained)


def test_a_learner_is_not_judged_by_classes() -> None:
    with pytest.raises(DomainError, match=r"a learner.*tasks for a learner"):
        Drops(data=DATA)(vgg((8,), (8,), classes=None))


RECIPE = """
schema: 1
name: spread
data:
  digits: {subset: {data: {digits: {size: 8}}, per_class: 8}}
steps:
  - networks.vgg: {plan: [[4], [6]], data: $digits, classes: data}
    observe: {layers: {evaluate.sensitivity: {data: $digits, ratios: [0.5]}}}
  - prune.sensitivity:
      criterion: {prune.taylor: {data: $digits, macs: 0.6}}
      by: {evaluate.sensitivity: {data: $digits, ratios: [0.5]}}
"""


def test_from_a_recipe(tmp_path: Any) -> None:
    run = execute(parse_recipe(RECIPE), store=tmp_path / "store")
    assert len(run.report("networks.vgg.layers").tables["sensitivity"].rows) == 2
    assert sum(widths(run.value())) < 10


@given(
    arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 1)),
    st.dictionaries(st.floats(0.05, 0.95), st.floats(-5, 90), min_size=1, max_size=5),
)
def test_levels_rise_with_importance(scores: Any, drops: dict[float, float]) -> None:
    worst = max(drops.values())
    found = levels(scores, drops, worst=worst)
    assert (np.diff(found[np.argsort(scores, kind="stable")]) >= 0).all()
    assert found.min() >= 0
    assert found.max() <= max(worst, 0) + 1e-3
