"""Trials in one of Optuna's storages, chosen by its samplers: TPE and NSGA-II, for one objective or several, with limits.

A study is named as the recipe is. Each field of a trial is one of Optuna's user attributes, so that its dashboard shows them. What no
branch of a choice asks for is never suggested (define by run).
"""

from __future__ import annotations

import json
import threading
import time
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from mapsto.errors import DataError, MissingExtra, SpecError
from mapsto.search.holes import Hole
from mapsto.search.samplers import grid
from mapsto.search.space import Space
from mapsto.search.trials import STALE, Identity, State, Trial, Trials, counted, from_plain, me

__all__ = ["SAMPLERS", "OptunaTrials", "is_optuna"]

SAMPLERS = ("tpe", "nsga2", "random", "grid")
_POPULATION = 12
"""Of NSGA-II; Optuna's 50 would be a random search for as many trials."""
_STARTUP = (4, 10)
"""Trials at random before TPE chooses: a third of all, within these bounds."""
_SURPLUS = "surplus"
"""The role of a trial that several workers began beyond the number asked for; it is nowhere shown."""
_ENDED = "ended"


def is_optuna(storage: str) -> bool:
    """Whether a storage is one of Optuna's: a database's URL, or a file of its journal.

    >>> is_optuna("sqlite:///trials.db"), is_optuna("trials.journal"), is_optuna("trials.jsonl")
    (True, True, False)
    """
    return "://" in storage or storage.endswith(".journal")


class OptunaTrials(Trials):
    """The trials of one search in one study.

    Parameters
    ----------
    storage
        ``sqlite:///file``, ``postgresql://…``, or a file that ends in ``.journal``.
    sampler
        One of `SAMPLERS`.

    Raises
    ------
    SpecError
        The study's trials are of another search; the database is of another version of Optuna.
    MissingExtra
        Optuna is not installed.
    """

    def __init__(
        self, storage: str, space: Space, identity: Identity, *, sampler: str, signs: Sequence[float], worker: int = 0
    ) -> None:
        try:
            import optuna
        except ImportError as error:
            raise MissingExtra("optuna", "search", where="--storage") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna: Any = optuna
        self._space, self._identity, self._sampler, self._worker = space, identity, sampler, worker
        self._signs, self._lock = tuple(signs), threading.Lock()
        self._live: dict[int, Any] = {}
        self._where = storage
        self._storage = _opened(storage)
        self._study: Any = self._opened_study(storage)

    def all(self) -> list[Trial]:
        with self._guarded():
            kept = self._study.get_trials(deepcopy=False)
        found = [self._trial(frozen) for frozen in kept]
        return [trial for trial in found if trial.role != _SURPLUS]

    def begin(self, most: int) -> Trial | None:
        with self._guarded():
            return self._begin(most)

    def _begin(self, most: int) -> Trial | None:
        trials = self.all()
        if not any(trial.state == "waiting" for trial in trials):
            if counted(trials) >= most:
                return None
            if self._sampler == "grid":
                suggest = grid(
                    self._space.ask, [trial for trial in trials if trial.holes], self._signs, cast("Any", None)
                )
                if suggest is None:
                    return None
                self.enqueue(self._space.ask(suggest), role="")
        self._study.sampler = self._made_sampler(len(trials), most)
        with _quiet():
            asked = self._study.ask()
            number = int(asked.number)
            self._set(number, worker=me(self._worker), started=time.time())
            holes = self._space.ask(lambda hole: _suggested(asked, hole))
        earlier = [trial for trial in self.all() if trial.number < number]
        attributes = dict(asked.user_attrs)
        if "role" not in attributes and counted(earlier) >= most:
            self._set(number, role=_SURPLUS, **{_ENDED: "lost"})
            self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)
            return None
        self._set(number, holes=holes)
        self._live[number] = asked
        return next(trial for trial in self.all() if trial.number == number)

    def enqueue(self, holes: Mapping[str, Any], *, role: str = "first", again: int | None = None) -> None:
        known = {hole.name: hole for hole in self._space.holes}
        params = {name: _coded(known[name], value) for name, value in holes.items()}
        attributes = {"role": role, "waiting": dict(holes), **({} if again is None else {"again": again})}
        with self._guarded():
            self._study.enqueue_trial(params, user_attrs=attributes)

    def note(self, number: int, **changes: Any) -> None:
        try:
            with self._guarded():
                self._set(number, **changes)
        except self._optuna.exceptions.UpdateFinishedTrialError:
            return  # a sign of life that comes after the end

    def end(self, number: int, state: State, **changes: Any) -> bool:
        with self._guarded():
            return self._end(number, state, **changes)

    def _end(self, number: int, state: State, **changes: Any) -> bool:
        states = self._optuna.trial.TrialState
        told = {"complete": states.COMPLETE, "stopped": states.PRUNED}.get(state, states.FAIL)
        try:
            self._set(number, **{_ENDED: state}, **changes)
            asked = self._live.pop(number, None)
            if asked is not None:
                for name, miss in changes.get("misses", {}).items():
                    asked.set_constraint(name, miss)
        except self._optuna.exceptions.UpdateFinishedTrialError:
            return False
        values = changes["values"] if state == "complete" else None
        with _quiet():
            self._study.tell(number, values, state=told, skip_if_finished=True)
        return True

    @contextmanager
    def _guarded(self) -> Generator[None]:
        """Within the block what goes wrong in the storage, as a full disk or a damaged file, is a `DataError` that names it."""
        from sqlalchemy.exc import SQLAlchemyError

        optuna = self._optuna.exceptions
        try:
            yield
        except (SQLAlchemyError, optuna.StorageInternalError, json.JSONDecodeError) as error:
            raise _unusable(error, self._where) from error

    def _opened_study(self, where: str) -> Any:
        directions = [goal for _, goal in self._identity.objectives]
        try:
            study = self._optuna.create_study(
                storage=self._storage, study_name=self._space.name, directions=directions, load_if_exists=True
            )
        except Exception as error:
            raise _unusable(error, where) from error
        kept = study.user_attrs.get("mapsto")
        if kept is None:
            study.set_user_attr("mapsto", self._identity.plain())
            return study
        self._identity.require(kept, f"study '{self._space.name}' in {where}")
        return study

    def _trial(self, frozen: Any) -> Trial:
        attributes: dict[str, Any] = dict(frozen.user_attrs)
        state = {"WAITING": "waiting", "RUNNING": "running", "COMPLETE": "complete", "PRUNED": "stopped"}
        ended = attributes.get(_ENDED, "failed")
        holes = attributes.get("holes") or attributes.get("waiting") or {}
        if "worker" not in attributes and frozen.datetime_start is not None:
            attributes["worker"] = {"host": "", "beat": max(frozen.datetime_start.timestamp(), time.time() - 2 * STALE)}
        fields = {**attributes, "number": frozen.number, "holes": holes, "state": state.get(frozen.state.name, ended)}
        try:
            return from_plain(fields)
        except DataError as error:
            raise DataError(error.what, where=self._where, hint=error.hint) from error

    def _set(self, number: int, **changes: Any) -> None:
        with self._lock:
            key = self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
            for name, value in changes.items():
                self._storage.set_trial_user_attr(key, name, value)

    def _made_sampler(self, begun: int, most: int) -> Any:
        """A sampler with a seed of its own for each trial: a search that goes on must not draw again what it has drawn."""
        samplers = self._optuna.samplers
        seed = (self._identity.seed * 1_000_003 + begun * 1009 + self._worker) % 2**32
        if self._sampler == "tpe":
            startup = min(max(most // 3, _STARTUP[0]), _STARTUP[1])
            return samplers.TPESampler(seed=seed, n_startup_trials=startup)
        if self._sampler == "nsga2":
            return samplers.NSGAIISampler(seed=seed, population_size=_POPULATION)
        return samplers.RandomSampler(seed=seed)


@contextmanager
def _quiet() -> Generator[None]:
    """Without Optuna's warnings of what is meant to be so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _unusable(error: Exception, where: str) -> DataError:
    text = next((line for line in str(getattr(error, "__cause__", None) or error).splitlines() if line.strip()), "")
    return DataError(
        f"the storage cannot be used: {text or type(error).__name__}",
        where=where,
        hint="see that its disk has space and that it may be written, or give another --storage: finished steps are in the store",
    )


def _coded(hole: Hole, value: Any) -> Any:
    """A value as Optuna keeps it: of an option its JSON, since a list is no category, and 1 and true are one."""
    return value if hole.kind == "range" else json.dumps(value, ensure_ascii=False)


def _suggested(trial: Any, hole: Hole) -> Any:
    if hole.kind != "range":
        options = [json.dumps(option, ensure_ascii=False) for option in hole.options]
        return json.loads(trial.suggest_categorical(hole.name, options))
    if hole.whole:
        step = 1 if hole.step is None else int(hole.step)
        return int(trial.suggest_int(hole.name, int(hole.low), int(hole.high), step=step, log=hole.log))
    return hole.rounded(trial.suggest_float(hole.name, hole.low, hole.high, step=hole.step, log=hole.log))


def _opened(storage: str) -> Any:
    """One of Optuna's storages by its URL or file."""
    from optuna import storages

    try:
        if "://" not in storage:
            from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

            Path(storage).parent.mkdir(parents=True, exist_ok=True)
            return storages.JournalStorage(JournalFileBackend(storage, JournalFileOpenLock(storage)))
        url, options = storage, {}
        if storage.startswith("sqlite:///"):
            Path(storage.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            options = {"connect_args": {"timeout": 60}}
        elif storage.startswith(("postgresql://", "postgres://")):
            url = f"postgresql+psycopg://{storage.partition('://')[2]}"
        return storages.RDBStorage(url, engine_kwargs=options)
    except ModuleNotFoundError as error:
        raise MissingExtra("psycopg", "postgres", where="--storage") from error
    except RuntimeError as error:
        raise SpecError(
            f"this database is of another version of Optuna: {error}",
            where=storage,
            hint="do what Optuna says, or give another --storage",
        ) from error
    except Exception as error:
        raise DataError(
            f"the storage cannot be opened: {str(error).splitlines()[0]}",
            where=storage,
            hint="check the URL where --storage was given, and that the disk has space and may be written",
        ) from error
