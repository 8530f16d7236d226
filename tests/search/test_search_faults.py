"""What goes wrong in a search: values that are no numbers, files that were edited or torn, storages that fail, workers that are killed."""

import json
import math
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.search.test_search import TINY, job_for, optuna_only, trial

from mapsto.errors import DataError, SpecError
from mapsto.recipe.reader import parse_recipe
from mapsto.search import outcome, worker
from mapsto.search.find import Observer, checked, find
from mapsto.search.frontier import best, frontier
from mapsto.search.goals import Goals, Objective, parse_limit
from mapsto.search.halving import promotable
from mapsto.search.holes import Hole
from mapsto.search.samplers import SAMPLERS
from mapsto.search.settings import Halving, settings_of
from mapsto.search.space import parse_space
from mapsto.search.trial_file import TrialFile
from mapsto.search.trials import Identity, Trial, changed, finished, from_plain, me
from mapsto.search.worker import open_trials

RATE = "{choice: [0.03, 0.01]}"
ORDERED = TINY.replace(
    "  - prune.magnitude: {macs: {choice: [0.5, 0.75]}}\n    optional: true\n    as: small\n",
    "  - any_order:\n"
    "      - [{prune.magnitude: {macs: 0.5}, as: pruned}]\n"
    "      - [{distill.logits: {teacher: $pruned, data: $learn, epochs: 1}}]\n"
    "      - [quantize.equalise: {}]\n"
    "    as: small\n",
)


def opened(folder: Path, text: str = TINY) -> TrialFile:
    identity = Identity(space="s", objectives=(("a", "maximize"),))
    return TrialFile(folder / "trials.jsonl", parse_space(text), identity, sampler="random", signs=[-1.0])


# ------------------------------------------------------------------------------------------------------------------------ spaces


@pytest.mark.parametrize(
    ("hole", "said"),
    [
        ("{range: [1, 1" + 400 * "0" + "]}", "two numbers of at most"),
        ("{choice: [2024-01-01, 0.01]}", "no plain one"),
        ("{choice: [[2024-01-01], 0.01]}", "no plain one"),
        ("{choice: [!!set {a, b}, 0.01]}", "no plain one"),
        ("{choice: [.nan, 0.01]}", "no plain one"),
    ],
)
def test_values_that_cannot_be_kept_are_refused(hole, said):
    with pytest.raises(SpecError, match=said) as caught:
        parse_space(TINY.replace(RATE, hole))
    assert str(caught.value).startswith("recipe:13:")


def test_a_range_may_be_written_without_a_point():
    (hole, *_) = parse_space(TINY.replace(RATE, "{range: [1e-4, 1E-1], log: true, default: 1e-3}")).holes
    assert (hole.low, hole.high, hole.default) == (1e-4, 0.1, 1e-3)


def test_a_hole_that_stands_for_itself_is_refused():
    named = TINY.replace(
        "search:\n", "search:\n  holes:\n    one: {choice: [$two, 1]}\n    two: {choice: [[$one], 2]}\n"
    )
    with pytest.raises(SpecError, match="the hole 'one' stands for itself by way of 'two'"):
        parse_space(named.replace(RATE, "$one"))


def test_a_section_that_is_no_mapping_is_refused():
    start, end = TINY.index("search:"), TINY.index("data:")
    with pytest.raises(SpecError, match=r"recipe:3:\d+: search: a mapping of entries, got \['a'\]"):
        parse_space(f"{TINY[:start]}search: [a]\n{TINY[end:]}")


def test_orders_that_cannot_be_are_left_out_and_said():
    """Three steps, of which one refers to another: three of six orders are left."""
    space = parse_space(ORDERED)
    (order,) = (hole for hole in space.holes if hole.kind == "order")
    assert len(order.options) == 3
    for option in order.options:
        assert option.index("pruned") < option.index("distill")
        space.at({order.name: option})
    assert "3 of 6 orders cannot be" in space.said[0]
    assert "'pruned'" in space.said[0]
    assert space.said[0] in checked(space, {}).said


def test_a_grid_of_a_tiny_step_takes_no_memory():
    hole = Hole(name="x", kind="range", low=0.0, high=1.0, step=1e-12)
    numbers = hole.grid(4)
    assert len(numbers) == hole.count == 1_000_000_000_001
    assert (numbers[0], numbers[-1], numbers[1]) == (0.0, 1.0, 1e-12)


PARTS = st.one_of(
    st.tuples(st.floats(1e-6, 1.0), st.floats(1.0, 9.0), st.booleans()).map(
        lambda each: f"{{range: [{each[0]!r}, {each[1]!r}]{', log: true' if each[2] else ''}}}"
    ),
    st.lists(st.floats(1e-6, 1e3).map(lambda value: float(f"{value:.6g}")), min_size=1, max_size=4, unique=True).map(
        lambda each: f"{{choice: {each}}}"
    ),
    st.tuples(st.floats(0.001, 0.1), st.floats(0.001, 3.0)).map(
        lambda each: f"{{range: [{each[0]!r}, 0.5], step: {each[1]!r}}}"
    ),
)
EPOCHS = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(9, 99), st.booleans()).map(
        lambda each: f"{{range: [{each[0]}, {each[1]}]{', log: true' if each[2] else ''}}}"
    ),
    st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True).map(lambda each: f"{{choice: {each}}}"),
)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, phases=[Phase.generate])
@given(rate=PARTS, epochs=EPOCHS, seed=st.integers(0, 2**31), sampler=st.sampled_from(sorted(SAMPLERS)))
def test_each_drawn_recipe_loads_and_is_drawn_again_by_its_seed(rate, epochs, seed, sampler):
    space = parse_space(TINY.replace(RATE, rate).replace("epochs: 2", f"epochs: {epochs}"))

    def drawn() -> list[Trial]:
        trials: list[Trial] = []
        for number in range(7):
            rng = np.random.default_rng((seed, number))
            suggest = SAMPLERS[sampler](space.ask, trials, [-1.0], rng)
            if suggest is None:
                break
            trials.append(trial(number, float(rng.random()), holes=space.ask(suggest)))
        return trials

    trials = drawn()
    assert trials == drawn()
    for each in trials[-3:]:
        candidate = space.at(each.holes)
        assert parse_recipe(candidate.text).steps == candidate.recipe.steps
        assert from_plain({"number": each.number, **json.loads(json.dumps(changed(each)))}) == each


# ------------------------------------------------------------------------------------------------------------------------ trials


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, 2.0, -0.0, 3.5])] * 3), max_size=12),
    goals=st.lists(st.sampled_from(["maximize", "minimize"]), min_size=1, max_size=3),
    missed=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_the_frontier_is_that_of_all_pairs(values, goals, missed):
    trials = [
        trial(number, *each[: len(goals)], misses={"limit": 0.5 if missed[number] else 0.0})
        for number, each in enumerate(values)
    ]
    signs = [1 if goal == "maximize" else -1 for goal in goals]
    able = {
        each.number: [sign * value for sign, value in zip(signs, each.values, strict=True)]
        for each in trials
        if each.feasible
    }
    wanted = {
        tuple(one)
        for one in able.values()
        if not any(all(np.array(two) >= one) and any(np.array(two) > one) for two in able.values())
    }
    found = frontier(trials, Goals(objectives=tuple(Objective(metric="m", goal=goal) for goal in goals)))
    assert {tuple(able[each.number]) for each in found} == wanted
    assert len(found) == len(wanted)
    assert [able[each.number][0] for each in found] == sorted((each[0] for each in wanted), reverse=True)


def test_an_objective_that_is_no_finite_number_is_no_point(tmp_path):
    """As of a file that an earlier version wrote."""
    plain = {"state": "complete", "holes": {"x": 1}}
    trials = [
        from_plain({**plain, "number": 0, "values": [math.nan]}),
        from_plain({**plain, "number": 1, "values": [1.0]}),
        from_plain({**plain, "number": 2, "values": [math.inf]}),
    ]
    goals = Goals(objectives=(Objective(metric="a", goal="maximize"),))
    assert [each.state for each in trials] == ["failed", "complete", "failed"]
    assert [each.number for each in frontier(trials, goals)] == [1]
    assert best(trials[:1], goals) is None


@pytest.mark.slow
def test_a_trial_whose_objective_is_nan_fails_and_the_search_goes_on(tmp_path, monkeypatch):
    known = worker.metrics_of

    def metrics_of(run):
        found = known(run)
        for name in found:
            if name.endswith(".macs") and name.startswith("big."):
                found[name]["value"] = math.nan
            if name.endswith(".parameters"):
                found[name]["value"] = math.inf
        return found

    monkeypatch.setattr(worker, "metrics_of", metrics_of)
    first = [{"small.kept": False}, {"small.kept": True}]
    found = find(job_for(tmp_path, search={"trials": 2}), first=first, ablate=False)
    assert [each.state for each in found.trials] == ["failed", "complete"]
    assert found.trials[0].error == "the objective 'small.size.macs' is nan, no finite number"
    outcome.save(found, tmp_path)
    text = (tmp_path / "frontier.json").read_text("utf-8")
    assert "NaN" not in text
    assert "Infinity" not in text


@pytest.mark.slow
def test_an_objective_that_some_recipes_lack_fails_their_trials_alone(tmp_path):
    text = TINY.replace(
        "  - prune.magnitude: {macs: {choice: [0.5, 0.75]}}\n    optional: true\n    as: small\n",
        "  - choice:\n"
        "      bare: [prune.magnitude: {macs: 0.75}]\n"
        "      counted: [{prune.magnitude: {macs: 0.5}, as: half, observe: {count: {evaluate.size: {}}}}]\n"
        "    as: small\n",
    )
    job = job_for(
        tmp_path, text, search={"trials": 2, "objectives": [{"metric": "half.count.macs", "goal": "minimize"}]}
    )
    found = find(job, first=[{"small": "bare"}, {"small": "counted"}], ablate=False)
    assert [each.state for each in found.trials] == ["failed", "complete"]
    assert "no step reports 'half.count.macs'" in found.trials[0].error


def test_a_training_that_diverges_is_not_among_the_best():
    halving = Halving(step="big", metric="val_loss", goal="minimize", rungs=1, eta=3)
    trials = [
        trial(0, state="stopped", rungs={"1": math.nan}),
        trial(1, state="stopped", rungs={"1": 0.5}),
        trial(2, state="stopped", rungs={"1": math.nan}),
    ]
    assert promotable(trials, halving) is trials[1]
    assert promotable(trials[:1], halving) is None


def test_of_a_configuration_the_last_trial_counts():
    trials = [trial(number, float(number), holes={"x": number % 3}) for number in range(2000)]
    assert [each.number for each in finished(trials)] == [1997, 1998, 1999]


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("bytes<=5ms", "'bytes' is size, and ms is a unit of time"),
        ("small.cost.p50<=2kB", "'small.cost.p50' is time, and kB is a unit of size"),
        ("accuracy>=90ms", "'accuracy' is a share, and ms is a unit of time"),
        ("bytes<=1e400", "no finite number"),
    ],
)
def test_a_limit_in_a_unit_of_something_else_is_refused(limit, said):
    with pytest.raises(SpecError, match=re.escape(said)):
        parse_limit(limit)


# ------------------------------------------------------------------------------------------------------------------------ storages


def test_a_line_torn_in_a_letter_and_odd_line_ends_in_texts_lose_nothing(tmp_path):
    trials = opened(tmp_path)
    begun = trials.begin(2)
    assert begun is not None
    with (tmp_path / "trials.jsonl").open("ab") as file:
        file.write('{"trial": 0, "error": "µ'.encode()[:-1])
    trials.end(begun.number, "failed", error="two lines\u2028one text\x85")
    (kept,) = opened(tmp_path).all()
    assert (kept.state, kept.error) == ("failed", "two lines\u2028one text\x85")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"trial": 0, "state": "odd"}, "trial 0: trial 0 has no 'state'"),
        ({"trial": 0, "values": "high"}, "trial 0: trial 0 has no 'values'"),
        ({"trial": 0, "holes": {"big.learning_rate": "fast"}}, "'fast' is not in the hole 'big.learning_rate'"),
        ({"trial": 0, "worker": {"host": 5}}, "trial 0: trial 0 has no 'worker'"),
        ({"trial": 7, "recipe": "x"}, "trial 7: trial 7 has no 'state'"),
        ({"trial": 0, "metrics": {"a.b.c": 1.0}}, "trial 0: trial 0 has no 'metrics'"),
    ],
)
def test_an_edited_file_of_trials_is_refused_with_the_trial(line, said, tmp_path):
    opened(tmp_path).begin(2)
    with (tmp_path / "trials.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(DataError, match=re.escape(said)):
        opened(tmp_path).take_on_lost()


def test_numbers_of_trials_are_used_once_where_lines_are_gone(tmp_path):
    trials = opened(tmp_path)
    for _ in range(3):
        trials.begin(9)
    lines = (tmp_path / "trials.jsonl").read_text().splitlines()
    (tmp_path / "trials.jsonl").write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    begun = trials.begin(9)
    assert begun is not None
    assert begun.number == 3


def test_a_file_of_trials_that_goes_away_is_named(tmp_path):
    trials = opened(tmp_path)
    trials.begin(2)
    (tmp_path / "trials.jsonl").unlink()
    with pytest.raises(DataError, match="went away while a search used it"):
        trials.note(0, rungs={})
    assert not (tmp_path / "trials.jsonl").exists()


def test_of_two_searches_one_takes_a_lost_trial_on(tmp_path):
    one, other = opened(tmp_path), opened(tmp_path)
    begun = one.begin(2)
    assert begun is not None
    one.note(begun.number, worker={**me(), "pid": 1, "born": 0.0})
    known = one.all()
    other.all = lambda: known  # it has looked before the first one ended the trial
    assert len(one.take_on_lost()) == 1
    del other.all
    assert not other.end(begun.number, "lost")
    assert other.take_on_lost() == []
    assert [each.state for each in one.all()] == ["lost", "waiting"]


@optuna_only
@pytest.mark.parametrize("harm", ["cut", "overwritten", "full"])
def test_a_database_that_is_damaged_or_cannot_be_written_is_named(harm, tmp_path):
    job = job_for(tmp_path, storage=f"sqlite:///{tmp_path}/trials.db", sampler="random")
    space = parse_space(TINY)
    kept = settings_of(space, job.search)
    trials = open_trials(job, space, kept)
    begun = trials.begin(3)
    assert begun is not None
    database = tmp_path / "trials.db"
    if harm == "full":
        with sqlite3.connect(database) as connection:
            connection.execute(
                "CREATE TRIGGER no BEFORE INSERT ON trials BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
            )
        with pytest.raises(
            DataError, match=r"the storage cannot be used: .*disk is full.*trials.db|trials.db: .*disk is full"
        ):
            trials.begin(3)
        return
    content = database.read_bytes()
    database.write_bytes(content[: len(content) // 2] if harm == "cut" else b"x" * len(content))
    with pytest.raises(DataError, match="storage cannot be"):
        open_trials(job, space, kept).begin(3)


@optuna_only
def test_a_trial_that_was_edited_in_a_database_is_named(tmp_path):
    job = job_for(tmp_path, storage=f"sqlite:///{tmp_path}/trials.db", sampler="random")
    space = parse_space(TINY)
    kept = settings_of(space, job.search)
    begun = open_trials(job, space, kept).begin(3)
    assert begun is not None
    with sqlite3.connect(tmp_path / "trials.db") as connection:
        connection.execute("UPDATE trial_user_attributes SET value_json = '5' WHERE key = 'holes'")
    with pytest.raises(DataError, match="trial 0 has no 'holes'"):
        open_trials(job, space, kept).all()


# ------------------------------------------------------------------------------------------------------------------------ time and workers


@pytest.mark.slow
def test_when_the_minutes_are_over_no_trial_begins(tmp_path):
    with pytest.raises(SpecError, match="no trial began within the minutes given"):
        find(job_for(tmp_path, until=time.time() - 1))
    said: list[str] = []

    class Told(Observer):
        def said(self, text: str) -> None:
            said.append(text)

        def began(self, trial: Trial) -> None:
            time.sleep(max(0.0, until - time.time()) + 0.1)

    until = time.time() + 1.5
    found = find(job_for(tmp_path, until=until), observer=Told(), first=[{"small.kept": True}])
    assert [each.state for each in found.trials] == ["complete"], "it came to its end, and no ablation began"
    assert said == ["the minutes are over: no trial begins any more, and what runs comes to its end"]


PARENT = """
import subprocess, sys, time
worker = (
    "import time; from mapsto.run.stopping import ends_on_sigterm; from mapsto.search.worker import _end_with_parent; "
    "ends_on_sigterm(); _end_with_parent(); time.sleep(300)"
)
print(subprocess.Popen([sys.executable, "-c", worker]).pid, flush=True)
time.sleep(300)
"""


@pytest.mark.slow
def test_a_worker_ends_with_the_search_that_was_killed():
    import psutil

    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker_process = psutil.Process(int(parent.stdout.readline()))
    time.sleep(8)
    assert worker_process.is_running()
    parent.kill()
    parent.wait()
    worker_process.wait(30)
