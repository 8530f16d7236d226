"""The process that learns: feedback beyond its position becomes a new version, which answers once it proved better.

Of every five labels one is held back: the learner never sees it. On those that were held back lately the candidate and the active
version are compared, and the candidate takes its place where it is right more often and a sign test says that this is no chance (Dixon and
Mood, "The Statistical Sign Test", 1946). Whoever sends many labels does not crowd out those of others, and no one's labels alone carry a
version: where those of all others speak against it, it does not answer. State, position, version and promotion are one transaction: after
a kill at any moment each label is learnt once.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import numpy as np

from mapsto.context import Context
from mapsto.data.io.feedback_log import is_held_back
from mapsto.errors import DomainError, MapstoError, StoreError
from mapsto.kinds import Block, ColumnType, Json, Stream
from mapsto.nn.online.encoder import EMBEDDING
from mapsto.service.distrust import distrusted
from mapsto.service.heads import VersionHead, of_learner
from mapsto.service.served_model import BASE, KeptScores, OwnHead, ServedModel
from mapsto.service.state import FeedbackRow, State, VersionRow, new_holder
from mapsto.store.state import decode_state, encode_state
from mapsto_runtime.signed_package import Trust

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.nn.online.learning import StreamLearner
    from mapsto.service.tracing import LearnTraces

__all__ = ["LEARNERS", "Evidence", "FeedbackLearner", "Held", "compared", "fair", "held_back"]

LEARNERS = ("online.ridge", "online.softmax", "online.prototypes", "online.mlp")
"""Online learners whose result is a head on features."""
_WINDOW = 200
"""Held-back labels by which versions are compared."""
_LEAST = 10
"""So many of them must differ between the versions, at least."""
_LEVEL = 0.05
"""Of the sign test."""
_CAUTION = 0.2
"""Of the sign test by which the labels of all but one caller speak against a candidate: less evidence than it takes to promote it."""
_MOSTLY = 2 / 3
"""Of the labels on which a candidate alone is right: where more of them are of one caller, it is said."""
_SILENT_SECONDS = 86_400.0
"""A held-back label that is so much older than the newest one no longer counts: who fell silent does not hold up the others for ever."""
_LEASE_SECONDS = 15.0


class _Feedback(Stream):
    """What the learner is opened with: labelled features, which this process hands to it block by block."""

    kind: ClassVar[str] = "feedback"

    @property
    def bounded(self) -> bool:
        return False

    def identity(self) -> str:
        return "feedback"

    def fingerprint(self) -> str:
        return "feedback"

    def columns(self) -> Mapping[str, ColumnType]:
        return {}

    def open(self, position: Json = None, *, size: int = 256) -> Iterator[Block]:
        return iter(())


@dataclass(frozen=True)
class Evidence:
    """What held-back labels say of a candidate and the active version."""

    labels: int
    candidate: float
    """Share of them that it gets right, in %."""
    active: float
    better: int
    """That the candidate alone gets right."""
    worse: int
    """That the active version alone gets right."""
    chance: float
    """Of so many more being better by chance, by the sign test."""
    alone: str = ""
    """The caller whose labels alone speak for the candidate, against those of all others."""
    mostly: str = ""
    """The caller of most labels that speak for the candidate, where it is more than two thirds of them."""
    share: float = 0.0
    """The caller's share of them, in %."""

    @property
    def of_one(self) -> str:
        """Who it is of, in words, where it is mostly of one caller; empty elsewhere."""
        return f"{self.share:.0f} % of the labels that speak for it are of {self.mostly}" if self.mostly else ""

    @property
    def promotes(self) -> bool:
        """Whether the candidate may take the place of the active version."""
        enough = self.better + self.worse >= _LEAST and self.better > self.worse and self.chance < _LEVEL
        return enough and not self.alone

    def __str__(self) -> str:
        who = f"; {self.of_one}" if self.mostly else ""
        if self.alone:
            who = f"; only the labels of {self.alone} speak for it, those of all others against it"
        return (
            f"candidate {self.candidate:.1f} %, active {self.active:.1f} % of {self.labels} held-back labels; the candidate alone "
            f"right on {self.better}, the active alone on {self.worse}, by chance with {_percent(self.chance)} %{who}"
        )


class Held(NamedTuple):
    """A label that is held back from the learner."""

    features: NDArray[np.float32]
    label: str
    time: float = 0.0
    caller: str = ""
    """Who gave it: tenant and name."""


class FeedbackLearner:
    """A model's learner at work.

    Parameters
    ----------
    learner
        The name of an online learner whose result is a linear head, such as ``online.ridge``.
    every
        Seconds between two versions at most, where something was learnt.
    least
        Labels that a first version takes.
    promote
        Whether a version that proves better takes the place of the active one.
    keep_seconds
        After which a held-back label goes; None: never for its age.
    """

    def __init__(
        self,
        model: ServedModel,
        state: State,
        *,
        learner: str = "online.ridge",
        every: float = 5.0,
        least: int = 10,
        promote: bool = True,
        keep_seconds: float | None = None,
    ) -> None:
        from mapsto import discovery

        self._model, self._state = model, state
        self._every, self._least, self._promote = every, least, promote
        self._holder = new_holder()
        self._learner = learner
        self._classes: set[str] = set()
        """Those that were learnt, at most `_MOST_CLASSES`."""
        self._said = ""
        self._mapping: Any = discovery.find("mappings", learner)(stream=_Feedback())
        self._live: Any = None
        self._position = 0
        self._learnt = 0
        """Labels since the last version."""
        self._published = 0.0
        self._held: list[Held] = []
        self._distrusts = -1
        self._distrusted: frozenset[tuple[str, str]] = frozenset()
        self._keep_seconds = keep_seconds
        self._erasures = -1
        """Of the state, when what is in memory was read."""
        self._fresh = False
        """Whether it began anew since the last version."""

    @property
    def model(self) -> str:
        """The name of the model."""
        return self._model.name

    @property
    def position(self) -> int:
        """Of the last row that was taken."""
        return self._position

    def step(self) -> int:
        """Take what is new, and publish where it is time; how many rows were taken. 0 too where another process has the lease."""
        if not self._state.lease(self._model.name, self._holder, _LEASE_SECONDS):
            self._live = None  # another goes on from what is stored
            return 0
        distrusts = self._state.distrusts()
        if distrusts != self._distrusts:  # it learns again without their labels
            self._live, self._distrusts, self._distrusted = None, distrusts, distrusted(self._state)
        erasures = self._state.erasures()
        if self._erasures != erasures:  # what was read before holds what was erased since
            self._live, self._erasures = None, erasures
        if self._live is None:
            self._live = self._opened()
        self._expire()
        rows = self._state.feedback(self._model.name, after=self._position)
        self._take(rows)
        due = time.monotonic() - self._published >= self._every
        if self._learnt and self._live.step >= self._least and due:
            self.publish()
        return len(rows)

    def publish(self) -> None:
        """A version of what was learnt, in one transaction with the state and the position."""
        name = self._model.name
        model = self._live.result()
        active = self._state.active(name)
        found = cast("StreamLearner", model.open()).head()
        if found is None:
            raise DomainError(
                f"{model.learner} gives no linear head, which a version is",
                where="--learn",
                hint="learn with online.ridge, online.softmax, online.prototypes or online.mlp",
            )
        head = of_learner(found[0], found[1], model.signature.classes)
        before = self._active_row(active)
        theirs = self._model.own_head() if before is None else VersionHead.of(before.content)
        # what somebody chose goes again only for labels that came since
        chosen = self._state.chosen(name)
        held = [each for each in self._held if each.time > chosen]
        evidence = compared(head, theirs, fair(_recent(held), _WINDOW))
        version = f"l-{self._position:08d}-{secrets.token_hex(3)}"
        row = VersionRow(
            model=name,
            version=version,
            kind="learned",
            parent=BASE if before is None else active,
            package=self._model.digest,
            content=head.content(),
            note=f"{model.events} labels; {evidence}",
        )
        promotes = self._promote and evidence.promotes
        stored = self._state.learnt(
            name,
            holder=self._holder,
            position=self._position,
            content=self._content(),
            note=str(evidence),
            version=row,
            promoted_from=active if promotes else None,
            why=str(evidence),
            distrusts=self._distrusts,
            erasures=self._erasures,
            fresh=self._fresh,
        )
        if not stored:
            # the lease is another's: what was learnt here is learnt there; or somebody's labels count no more, or are erased
            self._live = None
            return
        self._fresh = False
        self._learnt, self._published = 0, time.monotonic()
        if promotes and evidence.mostly and self._state.active(name) == version:
            self._say(f"version {version} answers now, and {evidence.of_one}")
        old = [each for each in self._state.versions(name) if each.kind == "learned"]
        if len(old) > _KEPT:
            going = superseded(old)
            self._state.drop_versions(name, [each for each in going if each != self._state.active_before(name)])

    def close(self) -> None:
        """Publish what was learnt, and give the lease back."""
        if self._live is not None and self._learnt and self._live.step >= self._least:
            self.publish()
        self._state.release(self._model.name, self._holder)

    # -- private

    def _opened(self) -> Any:
        """The learner as it was stored, or a new one where that is of another package or learner, or cannot be read."""
        stored = self._state.learner(self._model.name)
        self._fresh = True
        self._position, self._held, self._classes, self._learnt = 0, [], set(self._model.signature.classes or ()), 0
        state: Any = None if stored is None else decode_state(stored[3])
        if stored is None or not isinstance(state, dict) or state.get("package") != self._model.digest:
            if stored is not None and not isinstance(state, dict):
                self._say("what was learnt is damaged; it is learnt again from the labels")
            return self._mapping.open(None, None, Context())
        if state.get("learner", self._learner) != self._learner:
            self._say(f"{state['learner']} learnt before; {self._learner} learns again from the labels")
            return self._mapping.open(None, None, Context())
        if state.get("distrusts", 0) != self._distrusts:
            self._say("it learns again from the labels, without those that count no more")
            return self._mapping.open(None, None, Context())
        try:
            live = self._mapping.open(None, state["live"], Context())
            held = state["held"]
            times = held.get("times", [0.0] * len(held["labels"]))  # a state of before has none
            callers = held.get("callers", [""] * len(held["labels"]))  # nor these
            self._held = [
                Held(row, str(label), float(time_), str(caller))
                for row, label, time_, caller in zip(held["features"], held["labels"], times, callers, strict=True)
            ]
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            self._say(f"what was learnt cannot be read ({type(error).__name__}); it is learnt again from the labels")
            self._held = []
            return self._mapping.open(None, None, Context())
        self._position, self._fresh = stored[0], False
        self._classes |= set(live.result().signature.classes)
        return live

    def _say(self, text: str) -> None:
        """On standard error, once."""
        if text != self._said:
            sys.stderr.write(f"mapsto: the learner of '{self._model.name}': {text}\n")
        self._said = text

    def _take(self, rows: list[FeedbackRow]) -> None:
        taken: list[FeedbackRow] = []
        own = [
            row
            for row in rows
            if row.package == self._model.digest and (row.tenant, row.caller) not in self._distrusted
        ]
        for row in own:
            if row.label not in self._classes and len(self._classes) >= _MOST_CLASSES:
                self._say(f"labels of more than {_MOST_CLASSES} classes came; those of others are not learnt")
                continue
            self._classes.add(row.label)
            features = np.frombuffer(row.features, np.float32)
            if held_back(row):
                held = Held(features, row.label, row.time, f"{row.tenant}/{row.caller}")
                self._held = fair([*self._held, held], 2 * _WINDOW)
            else:
                taken.append(row)
        if taken:
            self._live.advance(_block(taken))
        if rows:
            self._position = rows[-1].position
            self._learnt += len(own)

    def _content(self) -> bytes:
        """The learner's state, as it is stored."""
        return encode_state(
            {
                "live": self._live.snapshot(),
                "held": self._held_state(),
                "package": self._model.digest,
                "learner": self._learner,
                "distrusts": self._distrusts,
            }
        )

    def _expire(self) -> None:
        """Let held-back labels go that are too old, in the state too."""
        if self._keep_seconds is None or not self._held:
            return
        oldest = time.time() - self._keep_seconds
        if min(each.time for each in self._held) >= oldest:
            return
        self._held = [each for each in self._held if each.time >= oldest]
        status = self._state.learner(self._model.name)
        if status is None:  # nothing of it is stored yet
            return
        stored = self._state.learnt(
            self._model.name,
            holder=self._holder,
            position=self._position,
            content=self._content(),
            note=status[2],
            distrusts=self._distrusts,
            erasures=self._erasures,
        )
        if not stored:
            self._live = None

    def _held_state(self) -> dict[str, Any]:
        return {
            "features": np.array([each.features for each in self._held], np.float32),
            "labels": [each.label for each in self._held],
            "times": [each.time for each in self._held],
            "callers": [each.caller for each in self._held],
        }

    def _active_row(self, active: str) -> VersionRow | None:
        """The active version; None where the package itself answers, also since that version is one of another package."""
        row = self._state.version(self._model.name, active) if active not in ("", BASE) else None
        return row if row is not None and row.package == self._model.digest else None


_PRIORITY = 10
"""By how much answers and labels that come go before learning from them."""
_MOST_CLASSES = 1000
_AGAIN_SECONDS = 10.0
"""After which a package that could not be loaded is tried again."""
_KEPT = 20
"""Learnt versions that are kept, the last ones."""
_KEPT_HOURS = 24
"""And before them the last of each of so many hours, as a way back to before something."""


def superseded(versions: Sequence[VersionRow]) -> list[str]:
    """Of learnt versions, the earliest first, those that are not kept.

    >>> common = {"model": "m", "kind": "learned", "parent": "1", "package": "", "content": b""}
    >>> superseded([VersionRow(version=str(i), created=600.0 * i, **common) for i in range(30)])
    ['0', '1', '2', '3', '4', '6', '7', '8']
    """
    hours = {int(each.created // 3600): each.version for each in versions[:-_KEPT]}
    kept = set(list(hours.values())[-_KEPT_HOURS:])
    return [each.version for each in versions[:-_KEPT] if each.version not in kept]


def held_back(row: FeedbackRow) -> bool:
    """Whether a label is held back from the learner: by its event alone, so that it is so after every restart.

    >>> rows = [FeedbackRow(model="m", event=str(i), tenant="a", version="1", label="x", answer="", features=b"") for i in range(1000)]
    >>> 150 < sum(map(held_back, rows)) < 250
    True
    """
    return is_held_back(row.tenant, row.event)


def fair(held: list[Held], most: int) -> list[Held]:
    """So many of them at most: as long as there are more, the oldest of the caller who has most goes.

    >>> labels = [Held(np.zeros(1), str(i), caller="few" if i < 2 else "many") for i in range(10)]
    >>> [each.label for each in fair(labels, 4)]
    ['0', '1', '8', '9']
    """
    over = len(held) - most
    if over <= 0:
        return held
    counts = Counter(each.caller for each in held)
    going: Counter[str] = Counter()
    for _ in range(over):
        ((caller, _),) = counts.most_common(1)
        counts[caller] -= 1
        going[caller] += 1
    kept: list[Held] = []
    for each in held:
        if going[each.caller]:
            going[each.caller] -= 1
        else:
            kept.append(each)
    return kept


def _recent(held: list[Held]) -> list[Held]:
    newest = max((each.time for each in held), default=0.0)
    return [each for each in held if newest - each.time < _SILENT_SECONDS]


def compared(
    candidate: VersionHead, active: VersionHead | OwnHead | KeptScores | None, held: Sequence[Held]
) -> Evidence:
    """What held-back labels say of two heads; without an active one every answer of it counts as wrong."""
    if not held:
        return Evidence(0, 0.0, 0.0, 0, 0, 1.0)
    features = np.stack([each.features for each in held])
    labels = [each.label for each in held]

    def right(head: VersionHead | OwnHead | KeptScores | None) -> NDArray[np.bool_]:
        if head is None or not head.classes:
            return np.zeros(len(labels), bool)
        return np.array(
            [head.classes[best] == label for best, label in zip(head.scores(features).argmax(1), labels, strict=True)]
        )

    ours, theirs = right(candidate), right(active)
    better, worse = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return Evidence(
        len(labels),
        100 * float(ours.mean()),
        100 * float(theirs.mean()),
        better,
        worse,
        _sign_test(better, worse),
        _alone([each.caller for each in held], ours & ~theirs, theirs & ~ours),
        *_mostly([each.caller for each, better_ in zip(held, ours & ~theirs, strict=True) if better_]),
    )


def _mostly(callers: Sequence[str]) -> tuple[str, float]:
    """The caller of more than two thirds of the labels, and the share in %; nobody where there is none, or none is known.

    >>> _mostly(["t/anna", "t/anna", "t/berta"]), _mostly(["t/anna", "t/anna", "t/anna", "t/berta"])
    (('', 0.0), ('t/anna', 75.0))
    """
    for caller, count in Counter(callers).most_common(1):
        known = caller and not caller.endswith("/")  # labels of before have no name
        if known and count > _MOSTLY * len(callers):
            return caller, 100 * count / len(callers)
    return "", 0.0


def _alone(callers: Sequence[str], better: NDArray[np.bool_], worse: NDArray[np.bool_]) -> str:
    """The caller without whose labels the others speak against the candidate; empty where there is none."""
    if better.sum() <= worse.sum():
        return ""
    names = np.array(callers)
    for caller in dict.fromkeys(callers):
        others = names != caller
        up, down = int(better[others].sum()), int(worse[others].sum())
        if down > up and _sign_test(down, up) < _CAUTION:
            return caller
    return ""


def _sign_test(better: int, worse: int) -> float:
    """The chance of `better` or more of ``better + worse`` fair coins."""
    from scipy.stats import binomtest

    return float(binomtest(better, better + worse, 0.5, alternative="greater").pvalue) if better + worse else 1.0


def _percent(chance: float) -> str:
    """>>> _percent(0.999), _percent(0.0312), _percent(1e-9)
    ('100', '3.1', '1e-07')
    """
    percent = 100 * chance
    return f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"


def _block(rows: list[FeedbackRow]) -> Block:
    count = len(rows)
    labels = np.empty(count, object)
    labels[:] = [row.label for row in rows]
    return Block(
        times=np.array([row.time for row in rows]),
        ids=np.array([""] * count, object),
        x={EMBEDDING: np.stack([np.frombuffer(row.features, np.float32) for row in rows]).astype(np.float64)},
        has_x=np.ones(count, bool),
        y=labels,
        has_y=np.ones(count, bool),
        next=rows[-1].position,
    )


def main() -> None:
    """Learn until SIGTERM or SIGINT; the settings come as JSON on standard input."""
    import signal

    settings: dict[str, Any] = json.load(sys.stdin)
    os.nice(_PRIORITY)
    ended: list[int] = []

    def end(number: int, frame: Any) -> None:
        ended.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    state = State(settings["state"], durability=settings["durability"])
    waiting = cast("list[dict[str, str]]", settings["models"])
    learners: list[FeedbackLearner] = []
    tried = -math.inf
    traces = None
    if settings["tracing"]:
        from mapsto.service.tracing import LearnTraces, Tracing, TracingSettings

        traces = LearnTraces(Tracing(TracingSettings(**settings["tracing"]), role="learner"), Path(settings["traces"]))
    try:
        while not ended and os.getppid() == settings["supervisor"]:  # which may have ended before this one was ready
            if waiting and time.monotonic() - tried >= _AGAIN_SECONDS:
                said = tried == -math.inf
                opened, waiting = _opened_learners(waiting, state, settings, say=said)
                learners += opened
                tried = time.monotonic()
            try:
                taken = sum(_stepped(learner, traces) for learner in learners)
            except StoreError as error:  # a disk that is full, or a database that is gone: it may come back
                sys.stderr.write(f"mapsto: {error}\n")
                taken = 0
                time.sleep(1.0)
            if not taken:
                time.sleep(settings["poll"])
    finally:
        for learner in learners:
            try:
                learner.close()
            except StoreError as error:  # the labels are stored, and are learnt from next time
                sys.stderr.write(f"mapsto: {error}\n")
        if traces is not None:
            traces.close()


def _stepped(learner: FeedbackLearner, traces: LearnTraces | None) -> int:
    """How many rows a step took."""
    if traces is None:
        return learner.step()
    began = time.time_ns()
    taken = learner.step()
    traces.stepped(learner.model, learner.position, taken, began)
    return taken


def _opened_learners(
    models: list[dict[str, str]], state: State, settings: dict[str, Any], *, say: bool
) -> tuple[list[FeedbackLearner], list[dict[str, str]]]:
    """Learners of the models whose packages can be loaded, and the models whose cannot."""
    found: list[FeedbackLearner] = []
    others: list[dict[str, str]] = []
    privacy: Any = settings["privacy"]
    keep_days: float | None = None if privacy is None else privacy["settings"]["keep_days"]
    for each in models:
        try:
            model = ServedModel(each["name"], Path(each["folder"]), trust=Trust.from_plain(settings["trust"]))
            learner = FeedbackLearner(
                model,
                state,
                learner=settings["learner"],
                every=settings["every"],
                promote=settings["promote"],
                keep_seconds=None if keep_days is None else keep_days * 86_400.0,
            )
        except (MapstoError, OSError) as error:
            if say:
                sys.stderr.write(f"mapsto: '{each['name']}' does not learn until its package can be loaded: {error}\n")
            others.append(each)
        else:
            found.append(learner)
    return found, others


if __name__ == "__main__":
    main()
