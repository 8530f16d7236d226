"""The advisor: what it knows of tasks, what it keeps of them, and how it changes its mind."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.command import mapsto

from mapsto import datasets, streams
from mapsto.errors import DataError, SpecError
from mapsto.kinds import Preprocessing, Samples
from mapsto.search.advisor import features, space
from mapsto.search.advisor.advice import advice, asked, kept_runs, known_runs
from mapsto.search.advisor.beliefs import Beliefs
from mapsto.search.advisor.goal import Goal
from mapsto.search.advisor.learning import outcome_of, recognised
from mapsto.search.advisor.runs import Outcome, Runs, Task, keys, load, merged, parsed, shipped
from mapsto.search.advisor.surrogate import Surrogate, default_recipe
from mapsto.search.advisor.trying import Trial, best, frontier
from mapsto.store import Store


def made_up(number: int, domain: str, *, noise: float = 1.0) -> Task:
    """A task of streams on which trees and networks are good where `near_any` is high, and linear learners where it is low."""
    rng = np.random.default_rng([number, *domain.encode()])
    suits = float(rng.random())
    runs: dict[str, Outcome] = {}
    for holes in space.recipes("stream"):
        base = 55 + 35 * (suits if holes["learner"] in ("mlp", "tree", "tabular") else 1 - suits)
        test, validation = np.clip(base + noise * rng.normal(size=2), 0, 100)
        runs[space.key_of(holes)] = Outcome(
            test=float(test), test_n=500, validation=float(validation), validation_n=500, bytes=10_000
        )
    values = {"near_any": suits, "late_ridge": 1 - suits, "means_all": 1 - suits, "no_change": 0.5, "classes": 1.0}
    name = f"{domain} {number}"
    return Task(id=features.task_id(name), name=name, domain=domain, kind="stream", features=values, runs=runs)


@pytest.fixture(scope="module")
def known() -> list[Task]:
    return [made_up(number, domain) for domain in ("one", "two", "three") for number in range(3)]


@pytest.fixture(scope="module")
def surrogate(known: list[Task]) -> Surrogate:
    return Surrogate(known, Goal())


# -- features


def test_the_order_of_samples_and_the_numbers_of_classes_change_no_feature() -> None:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(60, 5)), np.round(rng.normal(size=(60, 1)))], axis=1)
    labels = rng.integers(0, 3, 60)
    order, renamed = rng.permutation(60), np.array([2, 0, 1])
    one, other = features.of_rows(rows, labels), features.of_rows(rows[order], renamed[labels[order]])
    assert one.keys() == other.keys()
    assert all(one[name] == pytest.approx(other[name], abs=1e-7) for name in one)


def test_of_many_examples_the_order_does_not_decide_which_are_looked_at() -> None:
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(1500, 4)).astype(np.float32), rng.integers(0, 3, 1500)
    samples = Samples(inputs=rows, labels=labels, classes=("a", "b", "c"), preprocessing=Preprocessing(kind="none"))
    turned = samples.take(np.random.default_rng(1).permutation(1500))
    few, other = features._few(samples), features._few(turned)
    assert len(few) == features.MOST == len(other)
    assert sorted(map(tuple, few.inputs.tolist())) == sorted(map(tuple, other.inputs.tolist()))


def test_features_are_finite_and_of_numbers_of_any_scale() -> None:
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(40, 6)), np.tile([0, 1], 20)
    rows[:, 3] = 7.0  # a column of one value
    found = features.of_rows(rows * 1e6, labels)
    assert all(np.isfinite(value) for value in found.values())
    small = features.of_rows(rows * 1e-6, labels)
    assert found["columns_nearest"] == small["columns_nearest"]


@pytest.mark.parametrize("labels", [np.zeros(0, np.int64), np.zeros(9, np.int64)])
def test_no_example_and_one_class_are_refused(labels: Any) -> None:
    with pytest.raises(DataError, match="two classes or more"):
        features.of_rows(np.zeros((len(labels), 2)), labels)


def test_nan_in_the_data_is_refused(tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).normal(size=(10, 3))
    inputs[4, 1] = np.nan
    np.savez(tmp_path / "rows.npz", inputs=inputs, labels=np.tile([0, 1], 5))
    with pytest.raises(DataError, match="nan"):
        features.of_dataset(datasets.arrays(file=str(tmp_path / "rows.npz")), "table")


def test_a_class_alone_leaves_landmarks_out_and_invents_none() -> None:
    found = features.of_rows(np.random.default_rng(0).normal(size=(3, 4)), np.arange(3))
    assert "columns_nearest" not in found
    assert "columns_separation" in found


def test_a_stream_tells_whether_it_drifts() -> None:
    def found(threshold: float) -> dict[str, float]:
        parts = [streams.sea(events=1000, thresholds=[each], concept=5000, noise=0.0) for each in (6.0, threshold)]
        return dict(features.of_stream(streams.drift(streams=parts, at=[500])).values)

    still, turning = found(6.0), found(14.0)
    assert still["near_any"] > 0.85
    assert turning["near_recent"] - turning["near_any"] > still["near_recent"] - still["near_any"]
    with pytest.raises(DataError, match="5 labelled events"):
        features.of_stream(streams.sea(events=5))


# -- lists of runs


def test_no_sample_is_in_a_list_of_runs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(30, 3)).round(4), np.tile([0, 1], 15)
    task = Task(id="0" * 16, name="", domain="", kind="table", features=features.of_rows(rows, labels))
    text = Runs(tasks=(task,)).dumped()
    assert not any(f"{abs(value):.4f}"[:6] in text for value in rows.ravel())
    assert len(json.loads(text)["tasks"][0]["features"]) < 40


def test_a_list_is_read_as_it_was_written(known: list[Task], tmp_path: Path) -> None:
    whole = Runs(tasks=tuple(known))
    whole.save(tmp_path / "runs.json")
    again = load(tmp_path / "runs.json")
    assert again.count == whole.count
    assert again.tasks[3].runs == known[3].runs


def test_the_same_runs_count_once(known: list[Task]) -> None:
    one, other = Runs(tasks=tuple(known[:6])), Runs(tasks=tuple(known[4:]))
    both = merged([one, other, one])
    assert len(both.tasks) == len(known)
    assert both.count == sum(len(task.runs) for task in known)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[: len(text) // 2], "not whole JSON"),
        (lambda text: text.replace('"schema": 1', '"schema": 7'), "other form: schema 7"),
        (lambda text: text.replace('"features": 1', '"features": 9'), "other features"),
        (lambda text: text.replace('"space": 1', '"space": 9'), "other recipes"),
        (lambda text: text.replace('"test":', '"test":1e9,"x":', 1), "tasks.0"),
        (lambda text: text.replace("softmax small nothing", "softmax tiny nothing", 1), "a recipe that there is not"),
        (lambda text: "[1, 2]", "no list of runs"),
    ],
)
def test_a_list_of_another_kind_is_refused(known: list[Task], change: Any, said: str) -> None:
    text = Runs(tasks=tuple(known[:1])).dumped()
    with pytest.raises(DataError, match=said):
        parsed(change(text), where="theirs.json")


def test_an_own_list_of_other_features_is_to_be_moved_away(known: list[Task], tmp_path: Path) -> None:
    store = Store(tmp_path)
    kept_runs(store).parent.mkdir()
    kept_runs(store).write_text(Runs(tasks=tuple(known)).dumped().replace('"features": ', '"features": 9', 1))
    with pytest.raises(DataError, match="move it away"):
        known_runs(store)


def test_what_ships_is_whole_and_small() -> None:
    path = Path(space.__file__).with_name("prior.json")
    assert path.stat().st_size < 1_000_000
    prior = shipped()
    assert prior.count > 500
    assert all(np.isfinite(list(task.features.values())).all() for task in prior.tasks)


# -- the surrogate


def test_it_proposes_what_suits_the_task_and_says_on_what_it_leans(surrogate: Surrogate) -> None:
    task = next(each for each in (made_up(number, "four") for number in range(9)) if each.features["near_any"] > 0.7)
    prediction = surrogate.predict(task.features)
    first = surrogate.encoding.recipes[int(prediction.order[0])]
    assert first["learner"] in ("mlp", "tree", "tabular")
    leans = surrogate.leans(prediction, int(prediction.order[0]))
    assert 0 < sum(lean.weight for lean in leans) <= 1 + 1e-9
    assert [lean.weight for lean in leans] == sorted((lean.weight for lean in leans), reverse=True)
    assert prediction.weights.sum(1) == pytest.approx(1.0)


def test_intervals_hold_what_they_say_on_a_domain_left_out(surrogate: Surrogate) -> None:
    inside: list[float] = []
    for number in range(8):
        task = made_up(number, "five")
        prediction = surrogate.predict(task.features)
        accuracy = task.accuracy()
        inside.append(float(((accuracy >= prediction.low) & (accuracy <= prediction.high)).mean()))
    assert np.mean(inside) > 0.8


def test_an_unlike_task_gets_the_recipes_means(surrogate: Surrogate, known: list[Task]) -> None:
    strange = dict(known[0].features) | {"classes": 400.0, "no_change": 90.0}
    prediction = surrogate.predict(strange)
    assert prediction.unlike
    assert prediction.share == 0
    assert not surrogate.predict(known[0].features).unlike


def test_a_failed_run_counts_as_the_worst(known: list[Task]) -> None:
    key = keys("stream")[default_recipe(known, Goal())]
    failing = [Task(**{**vars(task), "runs": {**task.runs, key: Outcome(error="StepError: no")}}) for task in known]
    points = Goal().of(failing[0].accuracy(), failing[0].bytes())
    assert points.argmin() == keys("stream").index(key)
    assert keys("stream")[default_recipe(failing, Goal())] != key


def test_tasks_that_were_tried_with_few_recipes_are_leant_on_too(known: list[Task]) -> None:
    few = [
        Task(**{**vars(task), "runs": dict(list(task.runs.items())[at : at + 7])}) for at, task in enumerate(known[:4])
    ]
    assert default_recipe(few, Goal()) < 10
    prediction = Surrogate(few, Goal()).predict(known[5].features)
    assert np.isfinite(prediction.score).all()
    assert np.isfinite(prediction.size).all()


def test_a_limit_leaves_larger_models_out() -> None:
    points = Goal(most_bytes=5e3).of(np.array([90.0, 80.0, np.nan]), np.array([1e4, 1e3, np.nan]))
    assert points[1] > points[0]
    assert np.isnan(points[2])


def test_a_network_that_there_is_not_is_refused(known: list[Task]) -> None:
    question = asked({"csv": {"file": "events.csv", "target": "y"}}, stream=True)
    with pytest.raises(SpecError, match="no advice on a network 'lite0'"):
        advice(question, known[0], Runs(tasks=tuple(known[:3])), model="lite0")


def test_no_known_task_is_an_error() -> None:
    with pytest.raises(DataError, match="no task of this kind"):
        Surrogate([], Goal())


# -- trials


def test_a_better_trial_raises_it_and_what_is_like_it(surrogate: Surrogate) -> None:
    """The higher an outcome, the higher every belief that goes with it; none falls by it."""
    prediction = surrogate.predict(made_up(0, "six").features)
    found = []
    for points in (60.0, 70.0, 80.0):
        beliefs = Beliefs.of(surrogate, prediction)
        beliefs.observe(0, 65.0, accuracy=65.0, count=200)
        beliefs.observe(5, points, accuracy=points, count=200)
        found.append(beliefs.posterior()[0])
    assert found[0][5] < found[1][5] < found[2][5]
    assert found[0][4] < found[2][4]  # which differs from it in one hole


def test_trials_bring_it_to_the_best_recipe() -> None:
    known = [made_up(number, domain, noise=4.0) for domain in ("one", "two") for number in range(4)]
    surrogate = Surrogate(known, Goal())
    task = made_up(3, "seven", noise=4.0)
    points = Goal().of(task.accuracy("validation"), task.bytes())
    beliefs = Beliefs.of(surrogate, surrogate.predict(task.features))
    tried: list[int] = []
    for _ in range(12):
        tried.append(beliefs.next())
        beliefs.observe(tried[-1], float(points[tried[-1]]), accuracy=float(points[tried[-1]]), count=500)
    assert len(set(tried)) == 12
    assert points[beliefs.best()] > np.quantile(points, 0.85)


def test_a_trial_without_a_figure_is_refused(surrogate: Surrogate, known: list[Task]) -> None:
    beliefs = Beliefs.of(surrogate, surrogate.predict(known[0].features))
    with pytest.raises(SpecError):
        beliefs.observe(0, float("nan"))


def test_advice_goes_on_from_trials_on_the_same_data(known: list[Task]) -> None:
    task = made_up(2, "eight")
    question = asked({"csv": {"file": "events.csv", "target": "y"}}, stream=True)
    bare = Task(**{**vars(task), "runs": {}})
    known = known[:4]
    before = advice(question, bare, Runs(tasks=tuple(known)))
    key = space.key_of(before.proposals[0].holes)
    tried = Runs(tasks=tuple(known)).with_run(bare, key, task.runs[key])
    after = advice(question, bare, tried)
    assert after.trials == 1
    assert key not in [space.key_of(each.holes) for each in after.proposals]


# -- recipes and commands


@pytest.mark.parametrize("kind", space.KINDS)
def test_every_recipe_is_one_that_mapsto_reads(kind: space.Kind) -> None:
    from mapsto.recipe.reader import parse_recipe

    data: dict[str, Any] = {"examples": {"digits": {}}, "validation": {"digits": {}}}
    if kind == "stream":
        data = {"events": {"sea": {}}}
    for holes in space.recipes(kind):
        text = space.recipe(kind, holes, data, export=kind != "stream")
        assert parse_recipe(text).name == "advised"
    assert recognised(text, where="r.yaml")[1] == holes


def test_a_changed_recipe_is_not_learnt_from() -> None:
    text = space.recipe("table", space.recipes("table")[0], {"examples": {"digits": {}}})
    with pytest.raises(DataError, match="another recipe than its title says"):
        recognised(text.replace("adapt.linear", "adapt.ridge"), where="r.yaml")
    with pytest.raises(DataError, match="no advised recipe"):
        recognised(text.replace("table: columns", "mine: columns"), where="r.yaml")


@pytest.mark.slow
def test_from_a_table_to_a_run_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    with Path("rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "kind"])
        writer.writerows([f"{3 * (i % 2) + rng.normal():.3f}", f"{rng.normal():.3f}", "ab"[i % 2]] for i in range(40))
    store = ("--store", "kept")
    told = json.loads(
        mapsto("advise", "rows.csv", "--target", "kind", "--out", "first.yaml", "--json", *store, code=0).out
    )
    assert told["known_tasks"] >= 5
    assert len(told["proposals"]) == 5
    assert all(each["low"] <= each["accuracy"] <= each["high"] for each in told["proposals"])
    ran = mapsto("run", "first.yaml", "--threads", 1, "--out", "runs/first", *store, code=0)
    assert "the advisor has learnt from this run; it knows 1 of yours" in ran.err
    assert "0 of them new" in mapsto("advise", "learn", "runs/first", *store, code=0).out
    again = json.loads(mapsto("advise", "rows.csv", "--target", "kind", "--json", *store, code=0).out)
    assert again["trials"] == 1
    assert told["proposals"][0]["holes"] not in [each["holes"] for each in again["proposals"]]
    mapsto("advise", "export", "ours.json", *store, code=0)
    assert (
        "1 were in more than one list"
        in mapsto("advise", "merge", "ours.json", "ours.json", "--out", "all.json", *store, code=0).out
    )
    assert load(Path("all.json")).count == 1


@pytest.mark.slow
def test_trials_lean_on_those_before_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = [f"{3 * (i % 2) + rng.normal():.3f},{rng.normal():.3f},{'ab'[i % 2]}" for i in range(60)]
    Path("rows.csv").write_text("\n".join(["a,b,kind", *rows]) + "\n", encoding="utf-8")
    given = ("advise", "rows.csv", "--target", "kind", "--threads", 1, "--store", "kept", "--out", "tried")
    told = json.loads(mapsto(*given, "--trials", 2, "--json", code=0).out)
    assert [each["error"] for each in told["trials"]] == [None, None]
    assert all(low <= accuracy <= high for accuracy, low, high in (each["foretold"] for each in told["trials"]))
    more = json.loads(mapsto(*given, "--trials", 3, "--json", code=0).out)["trials"]
    assert [each["holes"] for each in more[:2]] == [each["holes"] for each in told["trials"]]
    assert [each["foretold"] is None for each in more] == [True, True, False]
    assert load(Path("kept/advisor/runs.json")).count == 3
    assert {path.name for path in Path("tried").iterdir()} >= {"package", "recipe.yaml", "report.html", "trials.json"}
    again = mapsto("run", "tried/recipe.yaml", "--plan", "--threads", 1, "--store", "kept", code=0).out
    assert "would run" not in again
    below = min(each["bytes"] for each in more) - 1  # whatever the list that ships proposes first
    small = mapsto(*given, "--trials", 3, "--limit", f"bytes={below}", code=2).err
    assert "no trial keeps the limit: the nearest has" in small or "no known recipe keeps the limit" in small


def test_the_best_of_alike_trials_is_the_smallest() -> None:
    def trial(accuracy: float, size: int, error: str = "") -> Trial:
        done = Outcome(validation=accuracy, validation_n=50, bytes=size, error=error)
        return Trial(holes={"smaller": str(size)}, outcome=done)

    trials = [trial(90.0, 80_000), trial(95.0, 90_000), trial(95.0, 20_000), trial(99.0, 10, "it broke")]
    assert best(trials, Goal()) is trials[2]
    assert best(trials, Goal(most_bytes=1e4)) is None
    assert frontier(trials) == [trials[2]]
    assert [each.accuracy for each in frontier([trial(70.0, 10), trial(70.0, 20), trial(80.0, 20)])] == [70.0, 80.0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rows.csv",), "a table needs the column"),
        (("rows.csv", "--target", "kind", "--limit", "latency=1ms"), "no advice on a limit of latency"),
        (("rows.csv", "--target", "kind", "--limit", "bytes=1"), "no known recipe keeps the limit"),
        (("rows.csv", "--target", "kind", "--only-prior"), "--only-prior without a --prior"),
        (("one.csv", "--target", "kind"), "only one class has samples"),
        (("rows.csv", "--target", "kind", "--minutes", "1"), "--minutes and --threads are of --trials"),
        (("rows.csv", "other.csv", "--target", "kind"), "one set of data"),
        (("learn", "nowhere"), "nowhere"),
        (("merge", "a.json"), "two lists or more"),
        (("export", "x.json"), "no run has been learnt from"),
    ],
)
def test_mistakes_are_said(words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f"{i / 7:.3f},{'ab'[i % 2]}" for i in range(20)]
    Path("rows.csv").write_text("\n".join(["a,kind", *lines]) + "\n", encoding="utf-8")
    Path("one.csv").write_text("a,kind\n1,a\n2,a\n3,a\n", encoding="utf-8")
    done = mapsto("advise", *words, "--store", "kept", code=2)
    assert said in done.err


def test_a_stream_that_ends_before_its_first_row_is_learnt_from():
    """The record has a row every 250 labels; of 160 there is none, but the account of the whole says how many were right."""
    steps = [
        {
            "kind": "step",
            "name": "online.tabular",
            "path": "model",
            "label": "model",
            "curves": None,
            "account": {"labels": 160, "figures": {"accuracy": 70.625}},
        },
        {
            "kind": "observe",
            "name": "evaluate.size",
            "path": "model.size",
            "label": "size",
            "report": {"metrics": {"bytes": {"value": 9}}},
        },
    ]
    outcome = outcome_of({"steps": steps}, "stream", where="run")
    assert (outcome.validation, outcome.validation_n) == (70.625, 160)
    steps[0]["account"] = {"labels": 0, "figures": {}}
    with pytest.raises(DataError, match="how often the model is right"):
        outcome_of({"steps": steps}, "stream", where="run")


def test_advice_on_a_folder_leaves_broken_images_out(tmp_path):
    """As adapting does; the recipe that is written says it too."""
    from mapsto.search.advisor.question import question_of

    (tmp_path / "photos" / "one").mkdir(parents=True)
    question = question_of(str(tmp_path / "photos"), None, None, stream=False)
    assert question.data["all"]["images"]["skip_broken"] is True
