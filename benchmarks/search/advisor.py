"""`mapsto advise` on tasks of a domain that it knows nothing of: how much worse than the best recipe after 1, 5 and 20 trials.

mapsto bench advisor
python benchmarks/search/advisor.py

The second command makes the list of runs that ships with mapsto anew. The searches are replayed from one stored table of runs, every
recipe of a task's kind on every task (`_advisor_table.py`, which fills it). Each domain is left out in turn: the surrogate, its settings
and the default come from the other domains of the same kind of data alone. A search sees what a trial came to on the validation examples;
what counts is how far the recipe that it would take is behind the best one on the test examples, in points: percent right less 3 for ten
times the bytes beyond 100 kB. Random search and TPE are replayed with 20 seeds. Tasks whose row is not whole are printed as "not run".
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import common
import numpy as np
from _advisor_table import TABLE, features_of, rows_of
from _advisor_tasks import DOMAINS
from _advisor_tasks import Task as Source
from numpy.typing import NDArray

from mapsto.nn.evaluate.classification import share as share_of
from mapsto.search.advisor import space
from mapsto.search.advisor.beliefs import Beliefs
from mapsto.search.advisor.goal import Goal
from mapsto.search.advisor.runs import Outcome, Runs, Task
from mapsto.search.advisor.surrogate import COVERAGE, Surrogate, default_recipe

SEEDS = range(20)
AFTER = (1, 5, 20)
"""Trials."""
GOAL = Goal()
SHIPPED = 5
"""Runs of a task without which it does not ship."""
LEAST = 2
"""Known tasks of a kind without which there is no advice to judge."""
Regrets = NDArray[np.float64]
"""After 1, 2, … 20 trials."""


def main(quick: bool = False) -> dict[str, Any]:
    known = tasks_of(TABLE)
    if quick:
        known = [made_up(number, domain) for domain in ("one", "two", "three") for number in range(3)]
    judged = [each for domain in dict.fromkeys(task.domain for task in known) for each in judge(domain, known, quick)]
    there = {task.name for task in known}
    tree = common.result(
        "advisor",
        conditions={
            "objective": GOAL.text,
            "tasks": len(judged),
            "runs": sum(len(task.runs) for task in known),
            "failed runs": sum(bool(run.failed) for task in known for run in task.runs.values()),
            "left out": "the task's domain; settings are chosen by leaving out one of the other domains after the other",
            "seen by a search": "accuracy on the validation examples; regret is on the test examples",
            "TPE": tpe_name(),
            "seeds": len(SEEDS),
            "quick": quick,
        },
        rows=[*rows_by_domain(judged), *([] if quick else not_run(there))],
        targets=goals(judged),
    )
    return common.finished(tree, quick=quick)


# ------------------------------------------------------------------------------------------------------------------- the table


def tasks_of(folder: Path) -> list[Task]:
    """The tasks of which every recipe has been tried, and the features are known."""
    return [task for source in _sources() if (task := task_of(source, folder)) is not None]


def task_of(source: Source, folder: Path, least: int | None = None) -> Task | None:
    """A task with its runs; None where there are fewer than `least`, by default one of every recipe."""
    found, rows = features_of(source, folder), rows_of(source, folder)
    if found is None or len(rows) < (least or len(space.recipes(source.kind))):
        return None
    runs = {space.key_of(row["holes"]): _outcome(row) for row in rows}
    return Task(
        id=found["id"],
        name=source.name,
        domain=source.domain,
        kind=source.kind,
        features=found["values"],
        runs=runs,
    )


def prior() -> Runs:
    """What ships with mapsto: tasks that have not been tried with every recipe yet are in it, too."""
    found = (task_of(source, TABLE, SHIPPED) for source in _sources())
    return Runs(tasks=tuple(task for task in found if task is not None))


def _sources() -> Iterator[Source]:
    return (source for each in DOMAINS.values() for source in each)


def _outcome(row: Mapping[str, Any]) -> Outcome:
    names = ("test", "test_n", "validation", "validation_n", "bytes", "cpu_s", "error")
    return Outcome(**{name: row[name] for name in names if name in row})


def not_run(there: set[str]) -> list[dict[str, Any]]:
    """One line a domain for its tasks that are not in the table yet."""
    found: dict[str, list[str]] = {}
    for source in _sources():
        if source.name not in there:
            found.setdefault(source.domain, []).append(source.name.removeprefix(f"{source.domain}_"))
    return [{"domain": f"{domain}: {', '.join(names)}", "tasks": "not run"} for domain, names in found.items()]


def made_up(number: int, domain: str) -> Task:
    """A task of streams for the quick form: a recipe is good where its learner suits a feature."""
    rng = np.random.default_rng([number, *domain.encode()])
    suits = float(rng.random())
    features = {"near_any": suits, "late_ridge": 1 - suits, "classes": 1.0, "columns": 3.0}
    runs = {}
    for holes in space.recipes("stream"):
        base = 60 + 30 * (suits if holes["learner"] in ("mlp", "tree") else 1 - suits)
        test, validation = np.clip(base + rng.normal(size=2), 0, 100)
        size = 10_000 if holes["size"] == "small" else 40_000
        outcome = Outcome(test=float(test), test_n=200, validation=float(validation), validation_n=200, bytes=size)
        runs[space.key_of(holes)] = outcome
    name = f"{domain} {number}"
    return Task(
        id=f"{abs(hash(name)):016x}"[:16], name=name, domain=domain, kind="stream", features=features, runs=runs
    )


# ------------------------------------------------------------------------------------------------------------------ the replay


def judge(domain: str, known: Sequence[Task], quick: bool = False) -> list[dict[str, Any]]:
    """What each side comes to on each task of a domain, by what the other domains of the same kind tell."""
    found = []
    for kind in dict.fromkeys(task.kind for task in known if task.domain == domain):
        rest = [task for task in known if task.kind == kind and task.domain != domain]
        if len(rest) < LEAST:
            continue
        surrogate = Surrogate(rest, GOAL)
        default = default_recipe(rest, GOAL)
        found += [
            {**replay(task, surrogate, default, quick), "kind": kind}
            for task in known
            if task.domain == domain and task.kind == kind
        ]
    return found


def replay(task: Task, surrogate: Surrogate, default: int, quick: bool) -> dict[str, Any]:
    test = GOAL.of(task.accuracy("test"), task.bytes())
    seen = GOAL.of(task.accuracy("validation"), task.bytes())
    prediction = surrogate.predict(task.features)
    regret = test.max() - test
    seeds = range(2) if quick else SEEDS
    runs = [task.runs[space.key_of(holes)] for holes in surrogate.encoding.recipes]
    accuracy = task.accuracy("test")
    there = np.isfinite(accuracy)
    inside = (accuracy >= prediction.low) & (accuracy <= prediction.high)
    first = int(prediction.order[0])
    return {
        "task": task.name,
        "domain": task.domain,
        "first": test[first],
        "first_recipe": space.key_of(surrogate.encoding.recipes[first]),
        "default": test[default],
        "default_recipe": space.key_of(surrogate.encoding.recipes[default]),
        "best_recipe": space.key_of(surrogate.encoding.recipes[int(test.argmax())]),
        "unlike": prediction.unlike,
        "settings": f"{surrogate.share:g}/{surrogate.gain:g}",
        "covered": float(inside[there].mean()),
        "width": float((prediction.high - prediction.low).mean()),
        "advisor": advised(surrogate, prediction, seen, regret, runs),
        "random": np.mean([searched(random_order(len(test), seed), seen, regret) for seed in seeds], axis=0),
        "TPE": np.mean([searched(tpe(task.kind, seen, seed), seen, regret) for seed in seeds], axis=0),
        "default_regret": regret[default],
        "all by validation": regret[int(seen.argmax())],
    }


def advised(surrogate: Surrogate, prediction: Any, seen: Any, regret: Any, runs: Sequence[Outcome]) -> Regrets:
    beliefs = Beliefs.of(surrogate, prediction)
    found = []
    for _ in range(AFTER[-1]):
        at = beliefs.next()
        beliefs.observe(at, float(seen[at]), accuracy=runs[at].validation or 50.0, count=runs[at].validation_n)
        found.append(regret[beliefs.best()])
    return np.array(found)


def searched(order: Sequence[int], seen: Any, regret: Any) -> Regrets:
    """The regret of what is best on the validation examples so far."""
    best = [max(order[: count + 1], key=lambda at: seen[at]) for count in range(AFTER[-1])]
    return regret[best]


def random_order(recipes: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).permutation(recipes)[: AFTER[-1]].tolist()


def tpe_name() -> str:
    if importlib.util.find_spec("optuna") is None:
        return "our own plain TPE, since optuna is not installed"
    import optuna

    return f"optuna {optuna.__version__}, TPESampler as it comes"


def tpe(kind: Any, seen: Any, seed: int) -> list[int]:
    """The recipes that a tree-structured Parzen estimator tries."""
    holes, recipes = space.holes_of(kind), space.recipes(kind)
    number = {space.key_of(each): at for at, each in enumerate(recipes)}
    if importlib.util.find_spec("optuna") is None:
        return own_tpe(kind, seen, seed)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    order = list[int]()
    for _ in range(AFTER[-1]):
        trial = study.ask()
        filled = {name: trial.suggest_categorical(name, list(options)) for name, options in holes.items()}
        order.append(number[" ".join(map(str, filled.values()))])
        study.tell(trial, float(seen[order[-1]]))
    return order


def own_tpe(kind: Any, seen: Any, seed: int, *, startup: int = 10, candidates: int = 24) -> list[int]:
    """TPE of independent categorical holes (Bergstra et al., 2011): ten random trials, then the candidate of the largest l(x) / g(x)."""
    holes, recipes = space.holes_of(kind), space.recipes(kind)
    number = {space.key_of(each): at for at, each in enumerate(recipes)}
    rng = np.random.default_rng(seed)
    order = list[int]()
    for at in range(AFTER[-1]):
        if at < startup:
            order.append(int(rng.integers(len(recipes))))
            continue
        ranked = sorted(order, key=lambda each: -seen[each])
        good = ranked[: max(int(np.ceil(0.1 * len(ranked))), 1)]
        shares = {}
        for name, options in holes.items():
            for which, chosen in (("l", good), ("g", ranked[len(good) :])):
                counts = np.array([1.0 + sum(recipes[each][name] == option for each in chosen) for option in options])
                shares[name, which] = counts / counts.sum()
        drawn = [
            {name: int(rng.choice(len(options), p=shares[name, "l"])) for name, options in holes.items()}
            for _ in range(candidates)
        ]
        worth = [sum(np.log(shares[n, "l"][v] / shares[n, "g"][v]) for n, v in each.items()) for each in drawn]
        best = drawn[int(np.argmax(worth))]
        order.append(number[" ".join(holes[name][value] for name, value in best.items())])
    return order


# ------------------------------------------------------------------------------------------------------------------- the result


def rows_by_domain(judged: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each domain, and all tasks."""
    domains = list(dict.fromkeys(each["domain"] for each in judged))
    groups = [(name, [each for each in judged if each["domain"] == name]) for name in domains]
    return [row_of(name, each) for name, each in [*groups, *([("all", list(judged))] if judged else [])]]


def row_of(name: str, tasks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    better = sum(bool(task["first"] > task["default"] + 1e-9) for task in tasks)
    equal = sum(bool(abs(task["first"] - task["default"]) <= 1e-9) for task in tasks)
    row: dict[str, Any] = {"domain": name, "tasks": len(tasks), "first better": better, "equal": equal}
    for side in ("advisor", "TPE", "random"):
        for count in AFTER:
            row[f"{side} {count}"] = spread([task[side][count - 1] for task in tasks])
    row["default"] = spread([task["default_regret"] for task in tasks])
    row["all by validation"] = spread([task["all by validation"] for task in tasks])
    row["covered %"] = round(100 * float(np.mean([task["covered"] for task in tasks])), 1)
    row["width of the interval"] = round(float(np.mean([task["width"] for task in tasks])), 1)
    row["unlike"] = sum(bool(task["unlike"]) for task in tasks)
    row["α/γ"] = ", ".join(sorted({task["settings"] for task in tasks}))
    return row


def spread(values: Sequence[float]) -> str:
    """The mean over tasks, and the interval of 95 % by drawing tasks anew."""
    low, high = bootstrap(values, np.mean)
    return f"{np.mean(values):.1f} [{low:.1f}, {high:.1f}]"


def bootstrap(values: Sequence[float], statistic: Callable[..., Any]) -> tuple[float, float]:
    drawn = np.random.default_rng(0).choice(np.asarray(values), size=(2000, len(values)))
    low, high = np.quantile(statistic(drawn, axis=1), (0.025, 0.975))
    return float(low), float(high)


def goals(judged: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not judged:
        nothing = (
            ("first proposal better than the default, % of tasks", ">= 70"),
            ("trials to TPE's quality of 20", "<= 5"),
        )
        return [common.target(what, goal, None) for what, goal in nothing]
    better = sum(bool(task["first"] > task["default"] + 1e-9) for task in judged)
    share = share_of(better, len(judged))
    mean = np.mean([task["advisor"] for task in judged], axis=0)
    wanted = float(np.mean([task["TPE"][AFTER[-1] - 1] for task in judged]))
    reached = np.flatnonzero(mean <= wanted)
    covered = 100 * float(np.mean([task["covered"] for task in judged]))
    return [
        common.target("tasks in the table", ">= 40", len(judged)),
        common.target("first proposal better than the best default, % of unseen tasks", ">= 70", round(share.value, 1)),
        common.target("lower end of its interval, %", "> 50", round(share.low or 0.0, 1)),
        common.target(
            "trials after which the mean regret is TPE's after 20",
            "<= 5",
            float(reached[0] + 1) if len(reached) else 21.0,
        ),
        common.target(f"runs inside the interval of {100 * COVERAGE:g} %, %", ">= 85", round(covered, 1)),
    ]


if __name__ == "__main__":  # after the table has grown: what ships is made of it
    import mapsto.search.advisor.runs as lists

    prior().save(Path(lists.__file__).with_name("prior.json"))
