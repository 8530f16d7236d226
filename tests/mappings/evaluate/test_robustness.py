"""Robust accuracy of networks whose answers can be worked out, and the recipe of the page on robust networks."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mapsto import datasets, evaluate, networks
from mapsto.context import Context, Numerics
from mapsto.errors import DataError, DomainError
from mapsto.recipe.reader import parse_recipe
from mapsto.run.executor import execute

ROOT = Path(__file__).parents[3]
ONE_THREAD = Numerics(threads=1)


@pytest.fixture
def line(tmp_path):
    """Two classes on a line, right by 0.5, 1.5, 2.5 … of the second number less the first."""
    steps = np.arange(0.5, 8, 1.0)
    rows = np.concatenate([np.stack([steps, -steps], 1), np.stack([-steps, steps], 1)]) / 2
    np.savez(tmp_path / "line.npz", inputs=rows.astype(np.float32), labels=np.array(["a"] * 8 + ["b"] * 8))
    data = datasets.arrays(file=str(tmp_path / "line.npz"))
    network = networks.mlp(data=data, widths=())()
    module = network.module()
    for name, parameter in module.named_parameters():
        parameter.data = torch.eye(2) if name.endswith("weight") else torch.zeros(2)
    signature = dataclasses.replace(network.signature, classes=("a", "b"))
    return dataclasses.replace(network.with_module(module), signature=signature), data


@pytest.mark.parametrize(("norm", "epsilon", "left"), [("linf", 1.0, 6), ("l2", 2**0.5, 6), ("linf", 3.1, 2)])
def test_what_is_left_right_is_what_lies_further_than_epsilon(line, norm, epsilon, left):
    network, data = line
    context = Context(numerics=ONE_THREAD)
    report = context.apply(evaluate.robustness(data=data, norm=norm, epsilon=epsilon), network)
    assert report.metrics["accuracy"].value == 100
    for attack in ("fgsm", "pgd", "apgd", "worst"):
        assert report.metrics[attack].value == 100 * left / 8, attack
    curve = report.series["curve"].ys["PGD-10"]
    assert curve[0] == 100
    assert list(curve) == sorted(curve, reverse=True)
    assert curve[-1] == 0
    assert not context.warnings


def test_examples_of_a_surrogate_are_given_to_the_network(line):
    network, data = line
    step = evaluate.robustness(data=data, epsilon=3.1, attacks=["pgd"], surrogate=network)
    found = Context(numerics=ONE_THREAD).apply(step, network).metrics
    assert found["transfer"].value == found["pgd"].value == found["worst"].value == 25


def test_what_cannot_be_attacked_is_refused(line, tmp_path):
    network, _ = line
    with pytest.raises(DomainError, match="classes"):
        evaluate.robustness(data=datasets.digits(size=8))(network)
    digits = datasets.digits(size=8)
    samples = digits.open()
    np.savez(tmp_path / "f.npz", inputs=samples.inputs.astype(np.float32) / 127 - 1, labels=samples.labels.astype(str))
    image = networks.conv4(data=digits, width=2, blocks=1, classes="data")()
    with pytest.raises(DataError, match="black as 0 and white as 1"):
        evaluate.robustness(data=datasets.arrays(file=str(tmp_path / "f.npz")))(image)


@pytest.mark.slow
def test_the_recipe_of_the_page_runs(tmp_path):
    text = (ROOT / "docs" / "robust.md").read_text(encoding="utf-8")
    found = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert found is not None
    run = execute(parse_recipe(found[1]), store=tmp_path / "store", numerics=ONE_THREAD)
    left = {name: run.report(f"{name}.attacks").metrics["pgd"].value for name in ("usual", "robust", "small")}
    assert left["robust"] > left["usual"] + 10, left
    assert abs(left["small"] - left["robust"]) < 15, left
    assert "transfer" in run.report("small.attacks").metrics
    assert run.report("robust.corruptions").metrics["lost"].value > 0
