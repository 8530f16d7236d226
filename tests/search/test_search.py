"""Searches end to end: trials that share steps, are killed, fail, are stopped at rungs, and what is left in the folder."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.command import mapsto

from mapsto.errors import DataError, SpecError
from mapsto.recipe.reader import load_recipe
from mapsto.search import outcome
from mapsto.search.find import Found, Observer, checked, find, place_for, trials_of
from mapsto.search.frontier import frontier
from mapsto.search.goals import Goals, Limit, parse_limit, parse_objective
from mapsto.search.holes import same
from mapsto.search.importance import importances
from mapsto.search.samplers import ranks
from mapsto.search.space import parse_space
from mapsto.search.trial_file import TrialFile
from mapsto.search.trials import Identity, Trial, finished, is_dead, me
from mapsto.search.worker import Job, open_trials

optuna_only = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("optuna") is None, reason="the extra `search` is not installed"
)
TINY = """\
schema: 1
name: tiny
search:
  objectives:
    - {metric: small.check.accuracy, goal: maximize}
    - {metric: small.size.macs, goal: minimize}
data:
  few: {subset: {data: {digits: {size: 8}}, per_class: 20}}
  learn: {fold: {data: $few, folds: 4}}
  check: {fold: {data: $few, folds: 4, part: judge}}
steps:
  - networks.conv4: {data: $learn, classes: data, blocks: 1, width: 4}
  - train.supervised: {data: $learn, validation: $check, epochs: 2, batch_size: 32, learning_rate: {choice: [0.03, 0.01]}}
    as: big
  - prune.magnitude: {macs: {choice: [0.5, 0.75]}}
    optional: true
    as: small
    observe: {check: {evaluate.accuracy: {data: $check}}, size: {evaluate.size: {}}}
"""
LONG = TINY.replace("epochs: 2", "epochs: 6").replace("choice: [0.03, 0.01]", "range: [0.0005, 0.1], log: true")


def job_for(folder: Path, text: str = TINY, **changes) -> Job:
    job = Job(
        recipe=text,
        search={"trials": 3},
        storage=str(folder / "trials.jsonl"),
        sampler="random",
        store=str(folder / "store"),
        numerics={"threads": 1},
    )
    return dataclasses.replace(job, **changes)


def trial(number: int, *values: float, **fields) -> Trial:
    return Trial(**{"number": number, "state": "complete", "values": values, "holes": {"x": number}, **fields})


@pytest.mark.slow
def test_a_search_to_its_end(tmp_path):
    """Steps that trials share are made once; the frontier's recipes run from the store; the same again does nothing."""
    ended: list[Trial] = []

    class Told(Observer):
        def ended(self, trial: Trial) -> None:
            ended.append(trial)

    first = [
        {"big.learning_rate": 0.03, "small.kept": False},
        {"big.learning_rate": 0.03, "small.kept": True, "small.macs": 0.5},
    ]
    job = job_for(tmp_path)
    found = find(job, observer=Told(), first=first, ablate=False)
    done = finished(found.trials)
    assert [each.holes for each in done[:2]] == first
    assert done[1].hits >= 2, "the training was not done again"
    assert done[1].saved > 0
    assert all(one.metrics["small.check.accuracy"]["low"] <= one.values[0] for one in done if not one.aliases)
    written = outcome.save(found, tmp_path / "out")
    assert written["frontier"]
    for point in written["frontier"]:
        file = tmp_path / "out" / point["recipe"]
        assert load_recipe(file).steps
        assert point["command"].startswith("mapsto run ")
    page = (tmp_path / "out" / "frontier.html").read_text("utf-8")
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    before = len(ended)
    assert find(job, observer=Told(), first=first, ablate=False).trials == found.trials
    assert len(ended) == before
    assert [each.holes for each in finished(trials_of(job))] == [each.holes for each in done]
    with pytest.raises(SpecError, match="another search: the recipe or its holes changed"):
        find(job_for(tmp_path, TINY.replace("0.75", "0.8")))


def test_a_trial_that_fails_is_named_and_the_search_goes_on(tmp_path):
    text = TINY.replace("per_class: 20", "per_class: {choice: [20, 4000]}")
    first = [{"few.per_class": 4000}, {"few.per_class": 20, "small.kept": False}]
    found = find(job_for(tmp_path, text, search={"trials": 2}), first=first, ablate=False)
    states = [each.state for each in found.trials]
    assert states == ["failed", "complete"]
    assert "4000" in found.trials[0].error
    assert "steps:" in found.trials[0].recipe
    with pytest.raises(SpecError, match="the only trial failed"):
        find(job_for(tmp_path, text, storage=str(tmp_path / "other.jsonl"), search={"trials": 1}), first=first[:1])


def test_data_that_are_missing_stop_a_search_at_its_first_trial(tmp_path):
    """What no hole changes fails in every trial alike; once it is mended, the same search goes on and has lost no trial."""
    rows = "a,b,kind\n" + "".join(f"{n},{n * n % 7},{'xy'[n % 2]}\n" for n in range(40))
    table = {"table": {"file": str(tmp_path / "rows.csv"), "target": "kind"}}
    text = json.dumps(
        {
            "schema": 1,
            "search": {"objectives": [{"metric": "net.size.macs", "goal": "minimize"}]},
            "data": {"rows": table},
            "steps": [
                {
                    "networks.mlp": {"data": "$rows", "classes": "data", "widths": {"choice": [[4], [8]]}},
                    "as": "net",
                    "observe": {"size": {"evaluate.size": {}}},
                }
            ],
        }
    )
    job = job_for(tmp_path, text, search={"trials": 2})
    with pytest.raises(DataError, match=r"data 'rows': .*rows.csv.* the same command goes on"):
        find(job, ablate=False)
    assert [each.state for each in trials_of(job)] == ["lost", "waiting"]
    with pytest.raises(DataError, match="data 'rows'"):
        find(job, workers=1, ablate=False)
    (tmp_path / "rows.csv").write_text(rows)
    found = find(job, ablate=False)
    assert sum(each.state == "complete" for each in found.trials) == 2
    assert not any(each.state == "failed" for each in found.trials)


def test_data_of_a_hole_are_those_of_their_trial_alone():
    text = TINY.replace("per_class: 20", "per_class: {choice: [20, 4000]}").replace(
        "data:\n", "data:\n  whole: {digits: {}}\n  part: {fold: {data: $whole}}\n", 1
    )
    assert parse_space(text).fixed_data == ("whole", "part")
    named = TINY.replace("search:\n", "search:\n  holes: {count: {choice: [10, 20]}}\n").replace(
        "per_class: 20", "per_class: $count"
    )
    assert parse_space(named).fixed_data == ()


def test_limits_that_no_trial_meets_end_with_2_and_keep_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY.replace("epochs: 2", "epochs: 1"))
    words = ["search", "tiny.yaml", "--trials", "1", "--sampler", "evolution", "--limit", "macs<=10", "--no-ablate"]
    said = mapsto(*words, "--json", code=2)
    nearest = json.loads(said.out)["nearest"]
    assert "no trial meets all limits; the nearest is trial 0" in said.err
    assert nearest["command"] in " ".join(said.err.split())
    assert load_recipe(Path("runs/search") / nearest["recipe"]).steps
    assert json.loads(Path("runs/search/frontier.json").read_text("utf-8"))["frontier"] == []


@pytest.mark.parametrize(
    ("value", "goal", "bound"),
    [(37056.0, "<= 10", "37056"), (0.123412, "<= 0.1", "0.1235"), (81.23499, ">= 90", "81.23")],
)
def test_the_bound_that_is_proposed_is_kept(value, goal, bound):
    limit = Limit(metric="x", goal=goal)
    assert outcome._bound(value, limit) == bound
    assert Limit(metric="x", goal=f"{goal[:2]} {bound}").miss(value) == 0


def test_a_metric_of_halving_that_the_log_does_not_have(tmp_path):
    job = job_for(tmp_path, search={"trials": 2, "halving": {"step": "big", "metric": "val_los", "rungs": [1]}})
    for _ in range(2):  # the second time its training is in the store
        with pytest.raises(SpecError, match=r"the log of step 'big' has no metric 'val_los'; did you mean 'val_loss'"):
            find(job, first=[{"small.kept": False}], ablate=False)


def test_a_metric_that_nothing_reports(tmp_path):
    space = parse_space(TINY)
    with pytest.raises(
        SpecError, match=r"no step reports 'smal.check.accuracy' \(did you mean 'small.check.accuracy'\?\)"
    ):
        checked(space, {"objectives": [{"metric": "smal.check.accuracy", "goal": "maximize"}]})
    job = job_for(tmp_path, search={"trials": 2, "objectives": [{"metric": "small.size.mcas", "goal": "minimize"}]})
    with pytest.raises(SpecError, match=r"no step reports 'small.size.mcas'; did you mean 'small.size.macs'"):
        find(job, first=[{"small.kept": True}])
    assert len(trials_of(job)) == 1, "it is known after the first trial"


def test_test_data_as_an_objective_are_warned_of():
    text = TINY.replace("check:", "test:").replace("$check", "$test")
    space = parse_space(text.replace("small.check", "small.test"))
    assert "'small.test.accuracy' is measured on data called 'test'" in checked(space, {}).said[0]
    assert checked(parse_space(TINY), {}).said == ()


def test_settings_are_refused_with_their_places():
    with pytest.raises(
        SpecError,
        match=r"recipe:4:5: search: unknown entry 'trails' \(did you mean 'trials'\?\)|recipe:\d+:\d+: search",
    ):
        checked(parse_space(TINY.replace("search:", "search:\n  trails: 5")), {})
    with pytest.raises(SpecError, match=r"halving: there is no step 'bgi' \(did you mean 'big'"):
        checked(parse_space(TINY), {"halving": {"step": "bgi"}})
    with pytest.raises(SpecError, match="there is no objective"):
        checked(parse_space(TINY), {"objectives": []})


def test_limits_nobody_can_meet_name_the_nearest_and_what_it_would_take(tmp_path):
    space = parse_space(LONG.replace("choice: [0.5, 0.75]", "range: [0.2, 0.9]"))
    goals = Goals(objectives=(parse_objective("accuracy:max"),), limits=(parse_limit("macs<=10"),))
    metrics = {"small.size.macs": {"value": 12.0}, "small.check.accuracy": {"value": 50.0}}
    far = trial(0, 60.0, misses={"macs <= 10": 0.5}, metrics={**metrics, "small.size.macs": {"value": 15.0}})
    near = trial(1, 50.0, misses={"macs <= 10": 0.2}, metrics=metrics, holes={"small.kept": True, "small.macs": 0.21})
    said = outcome.outcome_of(Found(space=space, goals=goals, trials=(far, near)), tmp_path)["nearest"]
    assert said["trial"] == 1
    assert "macs is 12, not <= 10, 20 % beyond" in said["said"]
    assert "small.macs is at its low end" in said["said"]
    assert said["edges"] == [{"hole": "small.macs", "end": "low", "value": 0.21}]


def test_the_frontier_has_what_no_other_trial_is_better_than():
    goals = Goals(objectives=(parse_objective("a:max"), parse_objective("b:min")), limits=(parse_limit("c<=1"),))
    trials = [
        trial(0, 90.0, 5.0),
        trial(1, 80.0, 5.0),
        trial(2, 80.0, 3.0),
        trial(3, 99.0, 1.0, misses={"c": 0.1}),
        trial(4, 90.0, 5.0),
    ]
    assert [each.number for each in frontier(trials, goals)] == [0, 2]
    order = ranks(trials, [-1.0, 1.0])
    assert max(range(5), key=lambda at: order[at]) == 3, "what misses a limit comes last"


def test_a_hole_that_decides_explains_most():
    space = parse_space(TINY)
    trials = [
        trial(n, float(n % 2), 0.0, holes={"big.learning_rate": [0.03, 0.01][n % 2], "other": n}) for n in range(12)
    ]
    shares = importances(trials, space.holes)
    assert next(iter(shares)) == "big.learning_rate"
    assert shares["big.learning_rate"] > 0.9
    assert importances(trials[:5], space.holes) == {}


def test_a_file_of_trials_outlives_a_torn_line_and_a_dead_worker(tmp_path):
    space, identity = parse_space(TINY), Identity(space="s", objectives=(("a", "maximize"),))

    def opened() -> TrialFile:
        return TrialFile(tmp_path / "trials.jsonl", space, identity, sampler="random", signs=[-1.0])

    trials = opened()
    begun = trials.begin(2)
    assert begun is not None
    with (tmp_path / "trials.jsonl").open("a") as file:
        file.write('{"trial": 0, "sta')
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    trials = opened()
    trials.note(begun.number, worker={**me(), "pid": dead.pid, "born": 0.0})
    assert [each.number for each in trials.take_on_lost()] == [0]
    again = trials.begin(2)
    assert again is not None
    assert (again.number, again.again, again.counts) == (1, 0, False)
    assert same(again.holes, begun.holes)
    assert not is_dead(me())
    with pytest.raises(SpecError, match="its objectives changed"):
        TrialFile(tmp_path / "trials.jsonl", space, Identity(space="s", objectives=()), sampler="random", signs=[])
    (tmp_path / "late.jsonl").write_text('{"format": 99}\n')
    with pytest.raises(SpecError, match="format 99"):
        TrialFile(tmp_path / "late.jsonl", space, identity, sampler="random", signs=[-1.0])


@optuna_only
@pytest.mark.parametrize(
    ("sampler", "file"),
    [
        ("tpe", "sqlite:///{}/trials.db"),
        ("nsga2", "{}/trials.journal"),
        ("random", "{}/trials.journal"),
        ("grid", "{}/trials.journal"),
    ],
)
def test_optunas_storages_keep_trials_as_the_file_does(sampler, file, tmp_path):
    storage = file.format(tmp_path)
    job = job_for(tmp_path, storage=storage, sampler=sampler)
    space = parse_space(TINY)
    settings = checked(space, job.search).settings
    trials = open_trials(job, space, settings)
    trials.enqueue({"small.kept": False}, role="first")
    for value in range(5):
        begun = trials.begin(5)
        assert begun is not None
        space.check(begun.holes)
        trials.note(begun.number, rungs={"1": 0.5})
        if value == 3:
            trials.end(begun.number, "failed", error="as it happens")
        else:
            trials.end(
                begun.number,
                "complete",
                values=[float(value), 1.0],
                misses={"c": 0.5 * value},
                metrics={"a.b.c": {"value": 1.0}},
            )
    assert trials.begin(5) is None
    again = open_trials(job, space, settings).all()
    assert [each.state for each in again] == ["complete", "complete", "complete", "failed", "complete"]
    assert again[0].holes["small.kept"] is False
    assert again[0].role == "first"
    assert again[3].error == "as it happens"
    assert (again[2].values, again[2].misses, again[2].rungs) == ((2.0, 1.0), {"c": 1.0}, {"1": 0.5})
    changed = dataclasses.replace(job, search={"trials": 3, "limits": [{"metric": "small.size.macs", "limit": "<= 5"}]})
    with pytest.raises(SpecError, match="its limits changed"):
        open_trials(changed, space, checked(space, changed.search).settings)


@optuna_only
def test_a_database_of_another_optuna_is_refused_with_what_to_do(tmp_path):
    import sqlalchemy as sa

    job = job_for(tmp_path, storage=f"sqlite:///{tmp_path}/trials.db", sampler="tpe")
    space = parse_space(TINY)
    open_trials(job, space, checked(space, job.search).settings)
    engine = sa.create_engine(job.storage)
    with engine.begin() as connection:
        connection.execute(sa.text("update alembic_version set version_num = 'v99'"))
    engine.dispose()
    with pytest.raises(SpecError, match="another version of Optuna"):
        open_trials(job, space, checked(space, job.search).settings)


def test_where_trials_go(tmp_path, monkeypatch):
    assert place_for(tmp_path, sampler="evolution").storage.endswith(".jsonl")
    with pytest.raises(SpecError, match="evolution keeps its trials in a file"):
        place_for(tmp_path, sampler="evolution", storage="sqlite:///x.db") if _has_optuna() else _refuse()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    place = place_for(tmp_path, sampler="tpe")
    assert (place.sampler, place.storage) == ("evolution", str(tmp_path / "trials.jsonl"))
    assert "pip install 'mapsto[search]'" in place.said


def _has_optuna() -> bool:
    import importlib.util

    return importlib.util.find_spec("optuna") is not None


def _refuse() -> None:
    raise SpecError("evolution keeps its trials in a file")


def test_each_recipe_of_the_page_is_a_space():
    page = (Path(__file__).parents[2] / "docs" / "search.md").read_text("utf-8")
    spaces = [parse_space(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert [len(space.holes) for space in spaces] == [7, 1]
    assert all(checked(space, {}).settings.goals.objectives for space in spaces)


@pytest.mark.slow
def test_killed_it_goes_on(tmp_path):
    """By SIGKILL in the midst of a trial of two workers; what is finished is kept, what was running is taken up again."""
    (tmp_path / "tiny.yaml").write_text(LONG)
    words = [sys.executable, "-m", "mapsto", "search", "tiny.yaml", "--trials", "6", "--out", "out", "--store", "store"]
    words += ["--threads", "1", "--workers", "2", "--no-ablate", "--sampler", "evolution", "--json"]
    process = subprocess.Popen(words, cwd=tmp_path, start_new_session=True, stdout=subprocess.DEVNULL)
    file = tmp_path / "out" / "trials.jsonl"
    began = time.monotonic()
    while not (file.exists() and '"complete"' in file.read_text("utf-8")):
        assert time.monotonic() - began < 240
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = [line for line in file.read_text("utf-8").splitlines() if '"complete"' in line]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, check=True)
    written = json.loads(ended.stdout)
    assert sum(each["state"] == "complete" for each in written["trials"]) == 6
    assert all(line in file.read_text("utf-8") for line in kept)
    lost = [each["number"] for each in written["trials"] if each["state"] == "lost"]
    assert lost == [each["again"] for each in written["trials"] if each["again"] is not None]


@pytest.mark.slow
def test_halving_stops_what_is_behind_and_takes_it_on_from_its_checkpoint(tmp_path):
    notes: list[str] = []

    class Told(Observer):
        def note(self, text: str) -> None:
            notes.append(text)

    halving = {"step": "big", "metric": "val_loss", "rungs": 2, "eta": 2}
    job = job_for(tmp_path, LONG, search={"trials": 8, "halving": halving})
    found = find(job, observer=Told(), ablate=False)
    stopped = [each for each in found.trials if each.state == "stopped"]
    assert stopped
    assert all("stopped at rung" in each.error for each in stopped)
    taken_on = [each for each in found.trials if each.again is not None]
    assert taken_on
    assert sum("goes on from item" in note for note in notes) >= len(taken_on)
    assert sum(each.counts for each in found.trials) == 8


@pytest.mark.slow
def test_many_workers_on_postgresql(tmp_path):
    pytest.importorskip("optuna", reason="the extra `search` is not installed")
    from tests.service.databases import postgresql

    with postgresql() as (url, _):
        job = job_for(tmp_path, LONG, storage=url, sampler="tpe", search={"trials": 6})
        found = find(job, workers=2, ablate=False)
    assert sum(each.state == "complete" for each in found.trials) == 6
    assert {each.worker["n"] for each in found.trials} == {0, 1}


@pytest.mark.slow
def test_tasks_of_ray_are_workers(tmp_path):
    pytest.importorskip("ray", reason="the extra `scale` is not installed")
    found = find(job_for(tmp_path, search={"trials": 2}), workers=2, ray=True, ablate=False)
    assert sum(each.state == "complete" for each in found.trials) == 2


@pytest.mark.slow
def test_the_shipped_search_and_its_ablation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mapsto("search", "search_digits", "--quick", "--trials", "4", "--sampler", "evolution", code=0)
    written = json.loads((tmp_path / "runs" / "search" / "frontier.json").read_text("utf-8"))
    assert written["frontier"]
    assert written["ablation"]
    assert all(row["what"].startswith("without") or "instead of" in row["what"] for row in written["ablation"])


@pytest.mark.slow
def test_compress_searches(tmp_path, monkeypatch):
    """It ends in the same package and report as without a search, and the targets are told."""
    monkeypatch.chdir(tmp_path)
    big = TINY[: TINY.index("  - prune.magnitude")].replace("{choice: [0.03, 0.01]}", "0.03").partition("search:")
    text = big[0] + "data:" + big[2].partition("data:")[2]
    (tmp_path / "big.yaml").write_text(text.replace("width: 4", "width: 16"))
    mapsto("run", "big.yaml", "--out", "big", code=0)
    words = ["compress", "big", "{digits: {size: 8}}", "--limit", "bytes=9k", "--epochs", "1", "--out", "small"]
    mapsto(*words, "--trials", "4", code=0)
    report = json.loads((tmp_path / "small" / "report.json").read_text("utf-8"))
    assert report["targets"][0]["met"] is True
    assert (tmp_path / "small" / "package").is_dir()
    written = json.loads((tmp_path / "small" / "search" / "frontier.json").read_text("utf-8"))
    assert [each["holes"]["size"] for each in written["trials"][:4]] == ["whole", "smaller", "smaller", "smaller"]
