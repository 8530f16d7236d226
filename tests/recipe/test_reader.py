from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapsto import datasets, evaluate, fork, networks, observe, prune, ref
from mapsto.errors import DataError, SpecError
from mapsto.mapping import Chain, Labelled
from mapsto.recipe.document import Recipe
from mapsto.recipe.nodes import data_from_node
from mapsto.recipe.reader import load_recipe, parse_recipe, shipped_recipes
from mapsto.recipe.serving import Thresholds, serving_of
from mapsto.recipe.writer import dump, node_of
from mapsto.run.contents import data_of

GOOD = """\
schema: 1
name: small
seed: 3
data:
  digits: {digits: {split: train}}
  tasks: {episodes: {data: $digits, ways: 3}}
steps:
  - networks.conv4: {channels: 1, size: 28}
  - train.supervised: {data: $digits, epochs: 4}
    as: teacher
    observe: {digits: {evaluate.accuracy: {data: $digits}}}
  - prune.magnitude: {macs: 0.5}
  - distill.logits: {teacher: $teacher, data: $digits}
quick: {teacher.epochs: 1}
"""


def test_reads_what_it_says() -> None:
    recipe = parse_recipe(GOOD)
    assert recipe.seed == 3
    assert recipe.data["tasks"].data == recipe.data["digits"]
    chain = recipe.steps
    assert isinstance(chain, Chain)
    assert [step.name for step in chain.steps][:2] == ["networks.conv4", "train.supervised"]
    assert chain.steps[-1].teacher == ref("teacher")
    assert chain.steps[-1].data == recipe.data["digits"]


def test_dump_gives_it_back() -> None:
    recipe = parse_recipe(GOOD)
    assert parse_recipe(dump(recipe)) == recipe


@given(
    macs=st.floats(0.05, 0.95),
    width=st.integers(1, 64),
    label=st.from_regex(r"[c-z]{1,6}", fullmatch=True),
    branches=st.integers(0, 3),
)
def test_load_of_dump_is_the_same(macs: float, width: int, label: str, branches: int) -> None:
    chain = networks.conv4(width=width).labelled(label) >> prune.magnitude(macs=macs)
    report = parse_recipe(GOOD).steps.steps[2].reports["digits"]
    if branches:
        chain = chain >> observe(**{f"r{i}": report for i in range(branches)})
    if branches == 3:
        chain = chain >> fork(a=prune.magnitude(macs=macs), b=prune.magnitude(macs=macs) >> prune.magnitude(macs=macs))
    recipe = Recipe(steps=chain)
    assert parse_recipe(dump(recipe)) == recipe


@given(steps=st.integers(1, 3), observed=st.booleans(), forked=st.booleans())
def test_a_label_on_a_chain_is_its_last_steps(steps: int, observed: bool, forked: bool) -> None:
    chain = networks.conv4(width=4)
    for _ in range(steps):
        chain = chain >> prune.magnitude(macs=0.5)
    if observed:
        chain = chain >> observe(size=evaluate.size())
    named = chain.labelled("small")
    assert [step.name for step in named.steps if isinstance(step, Labelled)] == ["prune.magnitude"]
    assert isinstance(named.steps[steps], Labelled)
    if forked:
        named = named >> fork(a=(prune.bn_scale(macs=0.5) >> prune.magnitude(macs=0.5)).labelled("last"))
    recipe = Recipe(steps=named)
    assert parse_recipe(dump(recipe)) == recipe


def test_a_step_has_one_label_and_observing_none() -> None:
    named = prune.magnitude(macs=0.5).labelled("one")
    with pytest.raises(SpecError, match=r"'two'.*is labelled 'one' already"):
        (networks.conv4() >> named).labelled("two")
    with pytest.raises(SpecError, match="label the step before it"):
        observe(size=evaluate.size()).labelled("seen")
    with pytest.raises(SpecError, match="label the last one"):
        Labelled(mapping=networks.conv4() >> prune.magnitude(macs=0.5), label="both")


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("prune.magnitude", "prune.magnitud"), 12, "did you mean 'prune.magnitude'"),
        (("epochs: 4", "epoch: 4"), 9, "did you mean 'epochs'"),
        (("macs: 0.5", "macs: 1.5"), 12, "macs"),
        (("macs: 0.5", "macs: half"), 12, "macs"),
        (("teacher: $teacher", "teacher: $techer"), 13, "did you mean 'teacher'"),
        (("teacher: $teacher", "teacher: $digits"), 13, "is a Digits, but a Network is needed"),
        (("data: $digits, ways", "data: $teacher, ways"), 6, "no earlier step or data entry"),
        (("schema: 1", "schema: 7"), 1, "upgrade mapsto"),
        (("seed: 3", "sed: 3"), 3, "did you mean 'seed'"),
        (("seed: 3", "seed: -3"), 3, "whole number"),
        (("digits: {digits:", "digits: {digts:"), 5, "did you mean 'digits'"),
        (("  - networks.conv4", "  - prune.magnitude: {macs: 0.5}\n  - networks.conv4"), 8, "do not compose"),
        (("as: teacher", "as: digits"), 10, "taken already"),
    ],
)
def test_errors_say_where(change: tuple[str, str], line: int, message: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(SpecError) as caught:
        parse_recipe(GOOD.replace(*change), where="r.yaml")
    assert f"r.yaml:{line}:" in str(caught.value)
    assert message in str(caught.value)


def test_all_errors_at_once() -> None:
    bad = (
        GOOD.replace("epochs: 4", "epoch: 4")
        .replace("macs: 0.5", "macs: 9")
        .replace("prune.magnitude", "prune.magnitude")
    )
    with pytest.raises(SpecError) as caught:
        parse_recipe(bad.replace("schema: 1", "schema: 2"))
    assert str(caught.value).startswith("3 errors")


def test_not_yaml_says_where() -> None:
    with pytest.raises(SpecError, match=r"recipe:2:"):
        parse_recipe("schema: 1\nsteps: [")


def test_settings_by_label_name_and_report() -> None:
    recipe = parse_recipe(
        GOOD, settings={"teacher.epochs": 9, "prune.magnitude.macs": 0.2, "digits.split": "test", "seed": 5}
    )
    assert recipe.steps.steps[1].mapping.epochs == 9
    assert recipe.steps.steps[3].macs == 0.2
    assert recipe.data["digits"].split == "test"
    assert recipe.seed == 5


def test_quick() -> None:
    assert parse_recipe(GOOD, quick=True).steps.steps[1].mapping.epochs == 1


def test_setting_of_nothing_offers_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'teacher'"):
        parse_recipe(GOOD, settings={"techer.epochs": 9})


def test_missing_file_offers_shipped() -> None:
    with pytest.raises(DataError, match="demo"):
        load_recipe("dem0")


def test_optional_data_that_are_missing_drop_their_reports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAPSTO_DATA", str(tmp_path))
    monkeypatch.setenv("MAPSTO_OFFLINE", "1")
    entries = "  omniglot: {omniglot: {}}\n  drawn: {episodes: {data: $omniglot}}\n"
    text = GOOD.replace("data:\n", f"optional: [omniglot]\ndata:\n{entries}", 1)
    reports = "omniglot: {evaluate.accuracy: {data: $omniglot}}, drawn: {evaluate.episodes: {tasks: $drawn}}"
    recipe = parse_recipe(text.replace("observe: {", f"observe: {{{reports}, "))
    assert list(recipe.skipped) == ["teacher.omniglot", "teacher.drawn"]
    assert list(recipe.steps.steps[2].reports) == ["digits"]


def test_a_setting_by_an_old_label_is_told_the_new_one() -> None:
    with pytest.raises(
        SpecError, match=r"no step or data entry is called 'rehearsals' \(it is called 'val_tasks' now\)"
    ):
        load_recipe("meta_protonet", settings={"rehearsals.ways": 5})
    with pytest.raises(SpecError, match=r"called 'rehearsals' \(known: "):
        parse_recipe(GOOD, settings={"rehearsals.ways": 5})


def test_nodes_are_for_recipes_and_a_field_in_python_takes_the_value() -> None:
    assert data_from_node({"subset": {"data": {"digits": {"size": 8}}, "per_class": 2}}).data == datasets.digits(size=8)
    with pytest.raises(SpecError, match=r"'data': should be a dataset, a source of one, or \$label, got \{'digits'"):
        prune.taylor(macs=0.5, data={"digits": {}})  # pyright: ignore[reportArgumentType]


def test_the_demo_needs_nothing_that_is_not_built_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAPSTO_DATA", str(tmp_path))
    monkeypatch.setenv("MAPSTO_OFFLINE", "1")
    recipe = load_recipe("demo")
    assert list(recipe.skipped) == ["teacher.omniglot", "int8.omniglot"]
    assert not [data for data in data_of(recipe.steps) if "omniglot" in str(node_of(data))]


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if not name.startswith("search_")])
def test_shipped_recipes_are_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.title
    assert load_recipe(name, quick=True)


def test_how_a_package_is_served_is_kept_and_checked(tmp_path: Path) -> None:
    text = "schema: 1\nsteps:\n  - networks.conv4: {}\nserve: {port: 0, learn: online.softmax, workers: 2}\n"
    recipe = parse_recipe(text)
    assert recipe.serve == {"port": 0, "learn": "online.softmax", "workers": 2}
    written = dump(recipe)
    assert parse_recipe(written) == recipe
    (tmp_path / "recipe.yaml").write_text(written, encoding="utf-8")
    found = serving_of(tmp_path)
    assert (found.port, found.learn, found.workers, found.durability) == (0, "online.softmax", 2, "process")
    with pytest.raises(SpecError, match="serve: port: 0 to 65535; 0: any that is free, got 'x'"):
        parse_recipe(text.replace("port: 0", "port: x"))
    with pytest.raises(SpecError, match=r"serve: unknown entry 'prot' \(.*port"):
        parse_recipe(text.replace("port: 0", "prot: 0"))
    watched = text.replace("port: 0", "alerts: {p99: 0.2, errors: 5}")
    (tmp_path / "recipe.yaml").write_text(dump(parse_recipe(watched)), encoding="utf-8")
    assert serving_of(tmp_path).alerts == Thresholds(p99=0.2, errors=5.0)
    with pytest.raises(SpecError, match=r"serve: alerts: unknown entry 'p9' \(.*p99"):
        parse_recipe(watched.replace("p99", "p9"))
    with pytest.raises(SpecError, match=r"serve: alerts: drift: corrected p-value of inputs being as before, got 2"):
        parse_recipe(watched.replace("errors: 5", "drift: 2"))
    with pytest.raises(SpecError, match=r"serve: alerts: \{errors, p99, …\}, beyond which .* got 7"):
        parse_recipe(watched.replace("{p99: 0.2, errors: 5}", "7"))
    (tmp_path / "recipe.yaml").write_text("serve: {workers: many}", encoding="utf-8")
    with pytest.raises(SpecError, match="workers"):
        serving_of(tmp_path)


def test_a_step_of_a_branch_refers_to_those_before_it_in_the_branch() -> None:
    text = (
        "schema: 1\ndata: {few: {digits: {}}}\nsteps:\n  - networks.conv4: {data: $few}\n  - fork:\n      a:\n"
        "        - prune.magnitude: {macs: 0.5}\n          as: first\n"
        "        - distill.logits: {data: $few, teacher: $first}\n      b:\n"
        "        - prune.magnitude: {macs: 0.5}\n  - choose.branch: {label: a}\n"
    )
    recipe = parse_recipe(text)
    assert parse_recipe(dump(recipe)).steps == recipe.steps
    in_another = text.replace("      b:\n", "      b:\n        - distill.logits: {data: $few, teacher: $first}\n")
    with pytest.raises(SpecError, match="no earlier step or data entry is labelled 'first'"):
        parse_recipe(in_another)
    with pytest.raises(SpecError, match=r"\$few is a Digits, but a Network is needed here"):
        parse_recipe(text.replace("teacher: $first", "teacher: $few"))
