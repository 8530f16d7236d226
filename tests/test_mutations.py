"""Damaged and hostile files are the user's error: exit code 2 and a message, never a traceback or "a fault of mapsto"."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mapsto.errors import MapstoError, SpecError
from mapsto.spec import load_recipe, parse_recipe, read_yaml, shipped_recipes
from tests.mutations import mutated_yaml

FEW = pytest.param(500, id="500")
MANY = pytest.param(20_000, id="20000", marks=pytest.mark.slow)

RECIPE = """\
schema: 1
name: small
title: A text
seed: 3
optional: [digits]
data:
  digits: {digits: {split: train}}
  tasks: {episodes: {data: $digits, ways: 3}}
steps:
  - networks.conv4: {channels: 1, size: 28, width: [8, 8, 8, 8]}
  - train.supervised: {data: $digits, epochs: 4}
    as: teacher
    observe: {digits: {evaluate.accuracy: {data: $digits}}}
  - fork:
      mild: [{prune.magnitude: {macs: 0.5}}, {distill.logits: {teacher: $teacher, data: $digits}, as: student}]
      hard: {prune.magnitude: {macs: 0.2}}
  - choose.best: {by: {evaluate.accuracy: {data: $digits}}}
quick: {teacher.epochs: 1, student.epochs: 1, digits.split: test}
targets: [{what: right, metric: choose.best.accuracy.accuracy, goal: ">= 90"}]
"""


@pytest.mark.parametrize("number", [FEW, MANY])
def test_a_damaged_recipe_is_the_users_error(number: int, tmp_path: Path) -> None:
    rng = random.Random(number)
    texts = [RECIPE]
    if number > 500:
        texts += [path.read_text(encoding="utf-8") for path in shipped_recipes().values()]
    file = tmp_path / "recipe.yaml"
    refused = 0
    for _ in range(number):
        file.write_bytes(mutated_yaml(rng.choice(texts), rng))
        try:
            load_recipe(file, quick=rng.random() < 0.5)
        except MapstoError as error:
            refused += error.exit_code == 2 and str(file) in str(error)
        else:
            refused += 1 / number  # a change that does no harm
    assert number * 0.6 < refused < number


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: " + "[" * 50_000, "nested too deeply"),
        ("steps:\n" + "".join(f"{' ' * depth}-\n" for depth in range(300)), "nested too deeply"),
        ("a: &a [*a]", "repeat too much"),
        ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
        ("a: !!float x", "not valid YAML"),
        ("{[a]: b}", "unhashable"),
        ("- x\n" * (2 << 20), "longer than 4 MiB"),
    ],
)
def test_yaml_that_is_refused_at_once(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read_yaml(text, where="r.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("quick: {teacher", "quick: {1: 2, teacher"), r"r\.yaml:18:9: quick: label\.field → value, got 1"),
        (("networks.conv4: {channels: 1, size: 28, width: [8, 8, 8, 8]}", "networks.conv4: 5"), "fields of 'networks.conv4'"),
        (("seed: 3", "seed: true"), r"r\.yaml:4:1: seed: a whole number from 0 .*got True"),
        (("goal: \">= 90\"", "goal: .nan"), r"r\.yaml:19:11: a target is .*got 'goal: nan'"),
        (("by: {evaluate.accuracy: {data: $digits}}", "by: $teacher"), "should be a mapping"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(change: tuple[str, str], message: str) -> None:
    assert change[0] in RECIPE
    with pytest.raises(SpecError, match=message):
        parse_recipe(RECIPE.replace(*change), where="r.yaml", quick=True)
