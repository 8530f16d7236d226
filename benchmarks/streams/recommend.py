"""`online.recommend` beside each of its members alone and river's recommenders: RMSE, hit rate and NDCG of ratings and of clicks.

mapsto bench recommend
mapsto bench recommend --only drifting --seeds 0

Every side is given the same events one after the other, in one process and thread, answers each before it learns it, and is counted from
the first event on. Answers lie between the least and the greatest rating so far. Of each rating at or above the mean so far the item is
ranked among 99 drawn ones that the user has not rated; all sides are given the same. ml-100k is measured where it lies in the data
folder, else it is printed as "not run". What could be chosen (mapsto's defaults, river's rates) was chosen on seeds from 101 on and other
numbers of users, items and events. Each trial is kept in ``benchmarks/results/trials/recommend.json``, so that the same command goes on
where it stopped.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import common

from mapsto import discovery, streams
from mapsto.context import Context
from mapsto.data.io.download import data_folder
from mapsto.kinds import Stream
from mapsto.nn.online.recommend.candidates import Candidates
from mapsto.nn.online.recommend.record import ranked
from mapsto.report.build import t95

EVENTS = 12_000
SEEDS = range(3)
DRAWN, HISTORY, FADE = 99, 500, 0.9999
"""The defaults of `online.recommend`: candidates, items of a user that are kept, and how the mean fades."""
RATINGS: dict[str, dict[str, Any]] = {
    "stationary": {"users": 300, "items": 250},
    "drifting": {"users": 300, "items": 250, "turns": 0.5, "changes": (EVENTS // 2,)},
    "many new users": {"users": 2000, "items": 400, "arriving": 0.9},
}
CLICKS: dict[str, dict[str, Any]] = {
    "clicks": {"users": 300, "items": 250, "feedback": "clicks"},
    "clicks, drifting": {
        "users": 300,
        "items": 250,
        "feedback": "clicks",
        "turns": 0.5,
        "changes": (EVENTS // 2,),
    },
}
MOVIELENS = "ml-100k"
OURS = "mapsto recommend"
ALONE = {f"mapsto {name} alone": (name,) for name in ("baseline", "sequence", "factors", "neural")}
RIVER = ("river BiasedMF", "river BiasedMF, as it comes", "river FunkMF", "river Baseline")
JUDGED = "river BiasedMF"
Trial = dict[str, Any]


class Rating(NamedTuple):
    user: str
    item: str
    rating: float


def main(quick: bool = False, only: str = "", seeds: Sequence[int] = ()) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = (Path(folder) if quick else common.RESULTS / "trials") / "recommend.json"
        trials = Trials(file)
        settings = (
            {**RATINGS, MOVIELENS: {}, **CLICKS} if not quick else {"stationary": {}, "clicks": {"feedback": "clicks"}}
        )
        for seed in SEEDS[:1] if quick else SEEDS:
            for setting in settings:
                if only in setting and (not seeds or seed in seeds):
                    measure(setting, seed, trials, events=300 if quick else EVENTS)
        names = list(settings)
        tree = common.result(
            "recommend",
            conditions={
                "events": EVENTS,
                "settings": {**RATINGS, **CLICKS},
                "ranked": f"of ratings: what is at or above the mean so far, among {DRAWN} drawn; of clicks: among all items known",
                "ordered": "mapsto by the lower end of an interval of the rating, river by its answer",
                "chosen on": "seeds from 101 on, other numbers of users, items and events: mapsto's defaults; river's rates",
                "river": "BiasedMF: biases SGD(0.05), factors SGD(0.1); FunkMF and Baseline: SGD(0.05)",
                "events a second": "CPU time of one thread, without ranking for river, with it for mapsto",
                "not run": trials.not_run,
                "quick": quick,
            },
            rows=[row for setting in names for row in rows_of(setting, trials)],
            targets=[goal for setting in names for goal in goals(setting, trials)],
        )
    return common.finished(tree, quick=quick)


class Trials:
    """What was measured, by setting and side."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._held: dict[str, dict[str, list[Trial]]] = {}
        if file.is_file():
            self._held = json.loads(file.read_text(encoding="utf-8"))
        self.not_run: dict[str, str] = {}

    def of(self, setting: str, side: str) -> list[Trial]:
        """The trials of a side's present version."""
        return [each for each in self._held.get(setting, {}).get(side, []) if each["version"] == version_of(side)]

    def lacks(self, setting: str, side: str, seed: int) -> bool:
        return seed not in [each["seed"] for each in self.of(setting, side)]

    def keep(self, setting: str, side: str, trial: Trial) -> None:
        print(setting, side, trial, flush=True)
        kept = [*self.of(setting, side), trial | {"version": version_of(side)}]
        self._held.setdefault(setting, {})[side] = sorted(kept, key=lambda each: each["seed"])
        self._file.parent.mkdir(parents=True, exist_ok=True)
        whole = self._file.with_suffix(".tmp")
        whole.write_text(json.dumps(self._held, indent=0) + "\n", encoding="utf-8")
        whole.replace(self._file)


def version_of(side: str) -> str:
    """A trial of another one is measured again."""
    if side.startswith("river"):
        import river

        return f"river {river.__version__}"
    return f"online.recommend {discovery.find('mappings', 'online.recommend').version}"


def sides_of(setting: str) -> list[str]:
    if setting in CLICKS:
        return [OURS, *ALONE]
    return [OURS, *(side for side in ALONE if "sequence" not in side), *RIVER]


def measure(setting: str, seed: int, trials: Trials, *, events: int) -> None:
    """Measure the sides that were not."""
    missing = [side for side in sides_of(setting) if trials.lacks(setting, side, seed)]
    if setting == MOVIELENS and not (data_folder() / "ml-100k" / "u.data").is_file():
        trials.not_run[MOVIELENS] = f"there is no {data_folder() / 'ml-100k' / 'u.data'}"
        return
    stream = stream_of(setting, seed, events)
    for side in missing:
        if side.startswith("river"):
            try:
                learner = river_learner(side, seed)
            except ImportError as error:
                trials.not_run[side] = str(error)
                continue
            trials.keep(setting, side, {"seed": seed, **run_river(learner, ratings_of(stream), seed)})
        else:
            members = {} if side == OURS else {"members": ALONE[side]}
            trials.keep(setting, side, {"seed": seed, **run_ours(stream, seed, members)})


def stream_of(setting: str, seed: int, events: int) -> Stream:
    if setting == MOVIELENS:
        return streams.movielens()
    fields = {**RATINGS, **CLICKS}[setting]
    scaled = {"changes": tuple(events * each // EVENTS for each in fields["changes"])} if "changes" in fields else {}
    return streams.tastes(events=events, seed=seed, **{**fields, **scaled})


def run_ours(stream: Stream, seed: int, fields: dict[str, Any]) -> Trial:
    mapping: Any = discovery.find("mappings", "online.recommend")(stream=stream, seed=seed, drawn=DRAWN, **fields)
    live = mapping.open(None, None, Context(seed=seed))
    blocks = list(stream.open())
    began = time.thread_time()
    for block in blocks:
        live.advance(block)
    seconds = time.thread_time() - began
    account = live.account()
    figures = account["figures"]
    found = {"events": account["events"], "seconds": seconds, "hit_rate": figures["hit_rate"], "ndcg": figures["ndcg"]}
    if "rmse" in figures:
        found["rmse"] = figures["rmse"]
        found["best member"] = min(
            row[1] for row in account["tables"][0]["rows"] if row[0] not in ("the answer", "blend")
        )
    else:
        found["mrr"] = figures["mrr"]
        found["best member"] = account["baselines"]["popular"]
    return found


def river_learner(side: str, seed: int) -> Any:
    """One of river's. Raises `ImportError` where it is not installed."""
    from river import optim, reco

    def drawn() -> Any:
        return optim.initializers.Normal(mu=0.0, sigma=0.1, seed=seed)

    makers: dict[str, Callable[[], Any]] = {
        "river BiasedMF": lambda: reco.BiasedMF(
            bias_optimizer=optim.SGD(0.05), latent_optimizer=optim.SGD(0.1), latent_initializer=drawn(), seed=seed
        ),
        "river BiasedMF, as it comes": lambda: reco.BiasedMF(seed=seed),
        "river FunkMF": lambda: reco.FunkMF(optimizer=optim.SGD(0.05), initializer=drawn(), seed=seed),
        "river Baseline": lambda: reco.Baseline(optimizer=optim.SGD(0.05)),
    }
    return makers[side]()


def ratings_of(stream: Stream) -> list[Rating]:
    found: list[Rating] = []
    for block in stream.open():
        columns = (block.x["user"].tolist(), block.x["item"].tolist(), block.y.tolist())
        found += [Rating(*event) for event in zip(*columns, strict=True)]
    return found


def run_river(learner: Any, events: Sequence[Rating], seed: int) -> Trial:
    """As `online.recommend` is tested: the same range of answers, the same candidates."""
    candidates, items, names = Candidates(DRAWN, seed=seed), {}, []
    had: dict[str, dict[int, None]] = {}
    low, high, weight, mean = math.inf, -math.inf, 0.0, 0.0
    squares = hits = gains = asked = seconds = 0.0
    for user, item, rating in events:
        if item not in items:
            items[item] = len(names)
            names.append(item)
        own = had.setdefault(user, {})
        began = time.thread_time()
        answer = learner.predict_one(user=user, item=item)
        seconds += time.thread_time() - began
        answer = min(max(answer, low), high) if weight else 0.0
        squares += (answer - rating) ** 2
        if rating >= mean:
            others = candidates.beside(items[item], own, known=len(names))
            if others:
                mine = learner.predict_one(user=user, item=item)
                worth = [learner.predict_one(user=user, item=names[each]) for each in others]
                place = 1.0 + sum(each > mine for each in worth) + 0.5 * sum(each == mine for each in worth)
                hit, gain, _ = ranked(place)
                asked, hits, gains = asked + 1.0, hits + hit, gains + gain
        began = time.thread_time()
        learner.learn_one(user=user, item=item, y=rating)
        seconds += time.thread_time() - began
        own.pop(items[item], None)
        own[items[item]] = None
        if len(own) > HISTORY:
            del own[next(iter(own))]
        weight = FADE * weight + 1.0
        mean += (rating - mean) / weight
        low, high = min(low, rating), max(high, rating)
    count = len(events)
    ranks = {"hit_rate": 100.0 * hits / asked, "ndcg": gains / asked} if asked else {"hit_rate": None, "ndcg": None}
    return {"events": count, "seconds": seconds, "rmse": math.sqrt(squares / count), **ranks}


# ------------------------------------------------------------------------------------------------------------------ figures


def rows_of(setting: str, trials: Trials) -> list[dict[str, Any]]:
    """A row a side: means over seeds, with the least and the most of the figure that counts."""
    rows: list[dict[str, Any]] = []
    for side in sides_of(setting):
        found = trials.of(setting, side)
        row: dict[str, Any] = {"setting": setting, "side": side, "seeds": len(found)}
        main = "hit_rate" if setting in CLICKS else "rmse"
        if not found:
            rows.append(row | {"rmse": "not run"})
            continue
        figures = {name: mean_of(found, name) for name in ("rmse", "hit_rate", "ndcg", "mrr")}
        spread = [each[main] for each in found]
        rows.append(
            row
            | {name: value for name, value in figures.items() if value is not None}
            | {"low": min(spread), "high": max(spread)}
            | {"events a second": statistics.median(each["events"] / each["seconds"] for each in found)}
        )
    return rows


def mean_of(found: Sequence[Trial], name: str) -> float | None:
    values = [each[name] for each in found if each.get(name) is not None]
    return statistics.mean(values) if values else None


def gaps(setting: str, other: str, trials: Trials, name: str, sign: int) -> list[float]:
    """How much better ours is than another side, seed by seed."""
    own = {each["seed"]: each[name] for each in trials.of(setting, OURS)}
    theirs = {each["seed"]: each[name] for each in trials.of(setting, other)}
    return [sign * (theirs[seed] - own[seed]) for seed in sorted(own) if seed in theirs]


def goals(setting: str, trials: Trials) -> list[dict[str, Any]]:
    name, sign = ("hit_rate", -1) if setting in CLICKS else ("rmse", 1)
    shown = "hit rate@10 above" if setting in CLICKS else "RMSE below"
    sides = [side for side in sides_of(setting) if side in ALONE]
    found = [(side, gaps(setting, side, trials, name, sign)) for side in sides]
    whole = [(side, values) for side, values in found if values]
    targets: list[dict[str, Any]] = []
    best = min(whole, key=lambda each: statistics.mean(each[1])) if len(whole) == len(sides) else None
    what = f"{setting}: {shown} the best single member" + (f", {best[0]}, {len(best[1])} seeds" if best else "")
    targets.append(common.target(what, "> 0", statistics.mean(best[1]) if best else None))
    if setting not in CLICKS:
        peer = gaps(setting, JUDGED, trials, name, sign)
        half = (t95(peer) or 0.0) if len(peer) > 1 else 0.0
        what = f"{setting}: {shown} river's BiasedMF; lower end of the paired 95 % interval, {len(peer)} seeds"
        targets.append(common.target(what, "> 0", statistics.mean(peer) - half if peer else None))
    own = trials.of(setting, OURS)
    rate = statistics.median(each["events"] / each["seconds"] for each in own) if own else None
    targets.append(common.target(f"{setting}: events a CPU second", ">= 3000", rate))
    return targets


if __name__ == "__main__":
    main("--quick" in sys.argv)
