"""Spaces: what is a hole, what a filled recipe says, and what is refused with its place."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.command import mapsto

from mapsto.errors import SpecError
from mapsto.recipe.reader import parse_recipe, shipped_recipes
from mapsto.search.find import checked
from mapsto.search.samplers import SAMPLERS
from mapsto.search.space import load_space, parse_space

WHOLE = """\
schema: 1
name: tiny
search:
  objectives: [{metric: small.check.accuracy, goal: maximize}]
  holes: {share: {range: [0.1, 0.9]}}
data: {all: {digits: {}}}
steps:
  - networks.conv4: {data: $all, classes: data, blocks: 2, width: {choice: [8, 16]}}
  - train.supervised: {data: $all, learning_rate: {range: [0.001, 0.1], log: true}, epochs: {range: [1, 4]}}
    as: big
  - choice:
      light: [prune.magnitude: {macs: $share}]
      heavy: [prune.taylor: {macs: $share, data: $all, batches: {choice: [5, 10]}}]
    as: pruned
  - any_order: [[quantize.equalise: {}], [quantize.bf16: {}]]
  - distill.logits: {teacher: $big, data: $all}
    optional: true
    as: small
    observe: {check: {evaluate.accuracy: {data: $all}}}
"""


def test_a_filled_recipe_is_what_a_user_would_write():
    space = parse_space(WHOLE)
    candidate = space.at(
        {"networks.conv4.width": 16, "big.epochs": 3, "share": 0.25, "pruned": "heavy", "small.kept": True}
    )
    tree = yaml.safe_load(candidate.text)
    steps = {next(iter(step)): step for step in tree["steps"]}
    assert steps["networks.conv4"]["networks.conv4"]["width"] == 16
    assert steps["train.supervised"]["train.supervised"]["epochs"] == 3
    assert steps["prune.taylor"]["prune.taylor"]["macs"] == 0.25
    assert steps["prune.taylor"]["as"] == "pruned"
    assert parse_recipe(candidate.text).steps == candidate.recipe.steps
    assert "search" not in tree


def test_holes_of_a_branch_exist_where_it_is_taken_alone():
    space = parse_space(WHOLE)
    assert [hole.name for hole in space.holes] == [
        "networks.conv4.width",
        "big.learning_rate",
        "big.epochs",
        "pruned",
        "share",
        "prune.taylor.batches",
        "any_order",
        "small.kept",
    ]
    assert "prune.taylor.batches" not in space.at({"pruned": "light"}).holes
    assert "prune.taylor.batches" in space.at({"pruned": "heavy"}).holes


def test_what_is_left_out_hands_on_its_label_and_its_reports():
    candidate = parse_space(WHOLE).at({"small.kept": False})
    last = yaml.safe_load(candidate.text)["steps"][-1]
    assert last["as"] == "small"
    assert list(last["observe"]) == ["check"]


def test_orders_are_tried():
    space = parse_space(WHOLE)
    order = next(hole for hole in space.holes if hole.kind == "order")
    names = [
        [next(iter(step)) for step in yaml.safe_load(space.at({"any_order": way}).text)["steps"]]
        for way in order.options
    ]
    assert [each.index("quantize.equalise") < each.index("quantize.bf16") for each in names] == [True, False]


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_stay_in_the_space_and_repeat_themselves(name):
    space = parse_space(WHOLE)

    def draws():
        found = []
        for number in range(5):
            suggest = SAMPLERS[name](space.ask, [], [-1.0], np.random.default_rng((0, number)))
            found.append(space.ask(suggest))
        return found

    drawn = draws()
    assert drawn == draws()
    for holes in drawn:
        space.check(holes)
        space.at(holes)


BROKEN = """\
schema: 1
data: {all: {digits: {}}}
search: {holes: {unused: {choice: [1, 2]}}}
steps:
  - networks.conv4: {data: $all, widht: {choice: [8, 16]}}
  - train.supervised:
      data: $all
      epochs: {choice: []}
      learning_rate: {range: [0, 0.1], log: true}
      momentum: {range: [0.9, 0.1]}
      batch_size: {range: [8, 64], lgo: true}
    as: {choice: [one, two]}
"""


def test_all_errors_of_a_space_at_once_with_their_places():
    with pytest.raises(SpecError) as caught:
        parse_space(BROKEN)
    text = str(caught.value)
    for place in (
        ":3:26: the hole 'unused' is used nowhere",
        ":8:24: the choice",
        ":9:30: the hole",
        ":10:25: the hole",
    ):
        assert place in text, text
    assert "'lgo' is no entry of a hole with 'range' (did you mean 'log'?)" in text
    assert "a label is a name that is written" in text


MANY = """\
schema: 1
search:
  objectives: [{metric: big.chekc.accuracy, goal: maximize}]
  holes: {rate: {range: [0.2, 0.1]}, share: {chioce: [1, 2]}}
data: {all: {digits: {szie: 8}}}
steps:
  - networks.conv4: {data: $all, classes: data, width: {choice: []}, widht: 3}
  - train.supervised: {data: $all, learning_rate: $rate, epochs: {range: [1, 4], lgo: true}, schedule: {choice: []}}
    as: big
    observe: {check: {evaluate.accurcy: {data: $all}}}
  - choice: {}
    as: empty
  - prune.magnitude: {macs: $share, shrae: 2}
  - any_order: [[quantize.equalise: {}]]
  - distill.logits: {teacher: $empty, data: $all, epocs: 2}
"""


def test_malformed_holes_hide_no_other_error():
    """What a hole would hold is not known, but everything around it is read on; nothing is said of the value put in its place."""
    with pytest.raises(SpecError) as caught:
        parse_space(MANY)
    first, *lines = str(caught.value).splitlines()
    said = {":".join(line.split(":")[1:3]): line for line in lines}
    assert first == f"{len(lines)} errors", "each once"
    expected = {
        "3:17": "no step reports 'big.chekc.accuracy' (did you mean 'big.check.accuracy'?)",
        "4:25": "the low end 0.2 is above the high end 0.1",
        "4:45": "the hole 'share' is neither",
        "5:23": "'szie'",
        "7:65": "the choice 'networks.conv4.width' is empty",
        "7:70": "'widht'",
        "8:87": "'lgo' is no entry of a hole",
        "8:113": "the choice 'big.schedule' is empty",
        "10:23": "'evaluate.accurcy'",
        "11:13": "choice: {name: [steps], other: [steps]}",
        "13:37": "'shrae'",
        "14:16": "at least two lists",
        "15:51": "'epocs'",
    }
    assert {place: text in said.get(place, "") for place, text in expected.items()} == dict.fromkeys(expected, True), (
        lines
    )
    assert len(lines) == len(expected), lines


def test_a_recipe_without_holes_says_its_other_errors_too():
    with pytest.raises(SpecError, match=r"(?s)2 errors.*no holes.*'widht'"):
        parse_space("schema: 1\ndata: {all: {digits: {}}}\nsteps: [networks.conv4: {data: $all, widht: 3}]\n")


def test_a_misspelt_field_is_named_where_its_hole_stands():
    text = WHOLE.replace("width:", "widht:")
    with pytest.raises(SpecError, match=r"recipe:8:\d+: .*widht"):
        parse_space(text)


def test_a_value_that_a_field_refuses_is_named_where_it_stands():
    with pytest.raises(SpecError, match=r"recipe:9:.*epochs"):
        parse_space(WHOLE.replace("range: [1, 4]", "range: [0, 4]"))


def test_a_recipe_without_holes_is_no_space():
    with pytest.raises(SpecError, match="no holes"):
        parse_space("schema: 1\nsteps: [networks.conv4: {}]\n")


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name.startswith("search_")])
def test_shipped_spaces_are_valid(name):
    space = load_space(name)
    assert space.name == name
    assert checked(space, {}).settings.objectives
    assert load_space(name, quick=True).at({}).text != space.at({}).text, "quick changes something"


def test_a_new_recipe_from_one_with_holes_is_a_space(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = mapsto("new", "mine", "--from", "search_digits", code=0)
    assert "search it with: mapsto search mine.yaml" in done.out
    assert load_space("mine.yaml").name == "mine"
    mapsto("search", "mine.yaml", "--plan", code=0)
    Path("bad.yaml").write_text(BROKEN)
    assert "'lgo' is no entry of a hole" in mapsto("new", "other", "--from", "bad.yaml", code=2).err
    assert not Path("other.yaml").exists()


def test_run_says_that_holes_are_for_search():
    with pytest.raises(SpecError, match=r"8:.*which a search fills"):
        parse_recipe(WHOLE)
