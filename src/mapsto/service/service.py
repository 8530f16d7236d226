"""The service as an object: its models, their versions, and what each request of a client comes to. HTTP is around it."""

from __future__ import annotations

import asyncio
import itertools
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec
import numpy as np

from mapsto.errors import MapstoError, StoreError
from mapsto.service.cross_validated_heads import WAYS
from mapsto.service.fitting import Support
from mapsto.service.heads import VersionHead, fitted, numbered
from mapsto.service.inference_protocol import Asked, Given, Output, encode, tensor
from mapsto.service.job_queue import NO_ROOM, Job, JobQueue
from mapsto.service.kept_answers import Kept, KeptAnswers, erase_in, opened_ring
from mapsto.service.keys import Caller, Keys, RunKey
from mapsto.service.refusal import Refusal
from mapsto.service.row_masking import DROPPED, entities_in
from mapsto.service.served_model import BASE, LABEL, ServedModel
from mapsto.service.state import PROMOTED, ROLLED_BACK, FeedbackRow, State, VersionRow
from mapsto.service.writer import Writer, Writes
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Answered", "EXTENSIONS", "Feedback", "Limits", "Service"]

EXTENSIONS = ("binary_tensor_data", "model_versions", "mapsto_adapt", "mapsto_feedback")
_MOST_CLASSES = 1000
_LONGEST_LABEL = 1000
_LARGEST = 1e15
"""Of a feature that can be learnt from: squares of larger ones leave 32 bits."""
_MOST_SCORES, _MOST_SCORES_OF_JOB = 2_000_000, 20_000_000
"""Examples times classes that a head is fitted to at once, and as a job: memory and time grow with them."""
_RIDGE = "ridge"
"""The way to a head in closed form, which is answered at once."""
_EXPIRE_SECONDS = 60.0
"""Between two times that answers which are too old are overwritten."""
_NOTE_SECONDS = 5.0
"""Between two times that the state is told which versions were used."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is allowed and kept."""

    most_wait: float = 1.0
    """Seconds that a request may be expected to wait before it is refused with 429."""
    deadline: float = 30.0
    """Seconds after which nothing is done for a request."""
    body: int = 64 << 20
    """Bytes of a request's body."""
    samples: int = 16_384
    """Of a request for answers; beyond it 413, since a batch of one request is not left half done for others that wait."""
    versions: int = 100
    """Private versions of a tenant, a model; the one that was not used for longest goes when another comes."""
    jobs: int = 10
    """Jobs of a tenant that wait or run; beyond it 429."""
    all_jobs: int = 100
    """Jobs of all tenants that wait or run; beyond it 429."""
    job_bytes: int = 64 << 20
    """Of the features of a job's examples; beyond it 413."""
    job_seconds: float = 600.0
    """After which a job fails."""
    heads: int = 1000
    """Versions in memory."""
    kept: int = 10_000
    """Answers that are kept for their labels, a worker and model."""
    kept_seconds: float = 3600.0


class Answered(NamedTuple):
    """What a version answers to a request."""

    version: str
    outputs: Sequence[Output]
    """All that there are."""
    parameters: dict[str, Any]


_NOT_STORED = {
    0: "it has another label already",
    DROPPED: "it holds personal data, which this service does not store",
}


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """A label for an answer, or for an input that comes with it."""

    label: str
    request_id: str = ""
    row: int = 0
    inputs: Sequence[Given] = ()
    idempotency_key: str = ""


@dataclass(eq=False)
class _Served:
    model: ServedModel
    kept: KeptAnswers | None
    active: str = BASE
    heads: OrderedDict[str, tuple[VersionHead, str | None]] = field(default_factory=OrderedDict[str, Any])
    """Versions that were loaded, with their owner; the one used last is the last."""
    used: set[str] = field(default_factory=set[str])
    """Versions that were asked for and that the state was not told of."""

    def taken_uses(self) -> list[str]:
        """What `used` held."""
        used, self.used = self.used, set()
        return sorted(used)


class Service:
    """Served models over a state.

    Parameters
    ----------
    models
        Loaded and tried.
    folder
        Where this service keeps answers for their labels.
    worker
        The number of this process.
    workers
        How many there are.
    run
        A key that is valid as long as this process lives, beside those of the state.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        state: State,
        folder: Path,
        *,
        worker: int = 0,
        workers: int = 1,
        limits: Limits | None = None,
        writer: Writes | None = None,
        run: RunKey | None = None,
    ) -> None:
        self.state, self.limits = state, limits or Limits()
        self.keys, self.writer = Keys(state, run), writer or Writer(state)
        self.jobs = JobQueue(state)
        self.ready = True
        self._folder, self._worker, self._workers = folder, worker, workers
        self._to_erase: list[tuple[str, bytes, float]] = []
        """Erasures whose answers are to be overwritten."""
        self._expired = time.monotonic()
        self._reload = False
        self.observe_feedback: Callable[[str, int, int], None] = _unobserved
        """Told of feedback that was stored: the model, its new labels, and those that there were already."""
        self.charge: Callable[[Caller, int], None] = _uncharged
        """Told of the labels that a caller gives beyond the first of each request, before they are stored."""
        self._models: dict[str, _Served] = {}
        self._changes = -1
        self._noted = time.monotonic()
        self._work = ThreadPoolExecutor(2, thread_name_prefix="adapt")
        self._reading = ThreadPoolExecutor(2, thread_name_prefix="reading")
        for model in models:
            self._models[model.name] = _Served(model, self._kept(model))
            state.set_package(model.name, model.digest)
        self.refresh()

    # -- what is there

    @property
    def names(self) -> list[str]:
        """Of the models."""
        return list(self._models)

    def model(self, name: str) -> ServedModel:
        """Raises `Refusal` (404) where there is none of that name."""
        return self._served(name).model

    def active(self, name: str) -> str:
        """The version that answers where none is asked for."""
        return self._served(name).active

    def metadata(self, name: str, version: str, caller: Caller) -> dict[str, Any]:
        """See `ServedModel.metadata`."""
        served = self._served(name)
        known = [BASE, *(row.version for row in self.versions(name, caller))]
        chosen, head = self._head(served, version, caller)
        return served.model.metadata(chosen, known, head)

    def versions(self, name: str, caller: Caller) -> list[VersionRow]:
        """All that the caller may use, the earliest first."""
        model = self.model(name)
        rows = self.state.versions(name)
        return [row for row in rows if row.package == model.digest and row.owner in (None, caller.tenant)]

    def kept(self, name: str) -> KeptAnswers | None:
        """A model's last answers; None where none are kept, since it does not adapt."""
        return self._served(name).kept

    def head(self, name: str, version: str) -> VersionHead | None:
        """A version's head, of whatever tenant, where it is in memory."""
        held = self._served(name).heads.get(version)
        return None if held is None else held[0]

    def refresh(self) -> None:
        """Take over what changed in the state, by this process or another."""
        changes = self.state.changes()
        if changes == self._changes:
            return
        self._changes = changes
        self._to_erase = self.state.to_erase()
        self.keys.refresh()
        for name, served in self._models.items():
            wanted = self.state.active(name) or BASE
            if wanted != served.active:
                if wanted != BASE:
                    try:
                        self._load(served, wanted)  # before it answers
                    except (Refusal, StoreError):  # of another package, or damaged: the one before goes on
                        continue
                served.active = wanted
            held = list(served.heads)
            there = self.state.known(name, held)
            for version in held:
                if version not in there:
                    served.heads.pop(version, None)

    def overwrite_answers(self) -> None:
        """Overwrite answers to whom was forgotten, and those that are too old. In the event loop, which alone writes them.

        Each does so in its files of packages that there were, and the first in all that nobody writes any more.
        """
        due = time.monotonic() - self._expired >= _EXPIRE_SECONDS
        erasures, self._to_erase = self._to_erase, []
        if not erasures and not due:
            return
        own = [served.kept for served in self._models.values() if served.kept is not None]
        for kept in own:
            for _, tenant, until in erasures:
                if tenant:
                    kept.erase(tenant, until=until)
            if due:
                kept.expire()
        mine = f"answers-{self._worker}.ring"
        written = {kept.folder / f"answers-{number}.ring" for kept in own for number in range(self._workers)}
        for path in set(self._folder.rglob("answers-*.ring" if self._worker == 0 else mine)) - written:
            self._overwrite_left(path, erasures, due=due)
        if due:
            self._expired = time.monotonic()

    def note_uses(self) -> None:
        """Tell the state every few seconds which versions were asked for: those that were not make room for others."""
        if time.monotonic() - self._noted < _NOTE_SECONDS:
            return
        self._noted = time.monotonic()
        for name, served in self._models.items():
            if served.used:
                self.state.note_use(name, served.taken_uses())

    def reload_soon(self) -> None:
        """Let `reload` be called by whoever follows the state; may be called by a signal's handler."""
        self._reload = True

    def reload(self) -> list[str]:
        """Load packages again whose files have changed; what is to be said: which were, what is wrong with those that go on."""
        if not self._reload:
            return []
        self._reload = False
        said: list[str] = []
        for name, served in list(self._models.items()):
            old = served.model
            try:
                new = old.reloaded(most_wait=self.limits.most_wait)
                if new.digest == old.digest:
                    continue
                fresh = _Served(new, self._kept(new))
                self.state.set_package(name, new.digest)
            except Exception as error:  # of a package that is broken in some way: it must not end the others
                said.append(f"model '{name}' goes on as it was: {error}")
                continue
            self._models[name] = fresh
            self._changes = -1
            said.append(f"model '{name}' is loaded again, as package {new.digest[:12]}")
        self.refresh()
        return said

    # -- what is asked

    async def infer(self, name: str, version: str, asked: Asked, caller: Caller) -> tuple[bytes, int | None]:
        """The body of an answer, and its JSON's length where bytes follow."""
        found = await self.answer(name, version, asked, caller)
        return encode(
            model=name, version=found.version, asked=asked, outputs=found.outputs, parameters=found.parameters
        )

    async def answer(
        self, name: str, version: str, asked: Asked, caller: Caller, *, seconds: float = math.inf
    ) -> Answered:
        """What a version answers; `seconds` are those after which nobody waits for it."""
        served = self._served(name)
        model = served.model
        chosen, head = self._head(served, version, caller)
        deadline = time.perf_counter() + min(self._deadline(asked), seconds)
        most = max((given.shape[0] for given in asked.inputs if given.shape), default=0)
        if most > self.limits.samples:
            raise Refusal(
                413,
                f"{most} samples are too many: at most {self.limits.samples} are answered at once; send them in parts",
            )
        samples = model.samples(asked.inputs) if not model.reads_slowly(asked.inputs) else None
        if samples is None:
            samples = await asyncio.get_running_loop().run_in_executor(self._reading, model.samples, asked.inputs)
        found = await model.infer(samples, deadline=deadline, key=caller.name)
        outputs = model.outputs(found, head)
        if asked.outputs is not None and "features" in asked.outputs and found.features is not None:
            outputs.append(Output("features", "FP32", found.features))
        parameters: dict[str, Any] = {}
        rows = None
        if served.kept is not None:
            rows = await model.kept(samples, found, deadline=deadline, key=caller.name)
        if served.kept is not None and rows is not None:
            best = outputs[0].array.argmax(1).tolist() if len(outputs) > 1 else [-1] * len(rows)
            parameters["request_id"] = served.kept.keep(rows, version=chosen, tenant=caller.tenant, answers=best)
        return Answered(chosen, outputs, parameters)

    async def adapt(self, name: str, asked: Asked, caller: Caller) -> dict[str, Any]:
        """A version from a support set: the inputs, and the label of each as the input ``label``; or a ``job`` that makes it.

        The parameter ``way`` says how the head is fitted: ``ridge``, at once, or one of `cross_validated_heads.WAYS`, as a job.
        """
        served = self._served(name)
        given, inputs = _labels(asked)
        labels = await self.writer.masked(given)
        merged = _merged(given, labels)
        masked = _count_masked(given, labels)
        way, shared = _way(asked), asked.parameters.get("shared", False)
        if not isinstance(shared, bool):
            raise Refusal(400, f"shared is true or false, not {short(repr(shared))}")
        if shared:
            caller.require("admin")
        owner = None if shared else caller.tenant
        began = time.perf_counter()

        def work() -> dict[str, Any]:
            if way != _RIDGE:
                self._require_place(caller)
            _require_few(labels, _MOST_SCORES if way == _RIDGE else _MOST_SCORES_OF_JOB)
            features = _features(served.model, inputs, labels)
            if way != _RIDGE:
                found = self._submitted(served.model, features, labels, caller, way=way, shared=shared, **masked)
                return {**found, "notes": [*merged, *found["notes"]], **masked}
            head = fitted(features, labels)
            notes = [*merged, *_notes(features, labels)]
            row = VersionRow(
                model=name,
                version=f"a-{secrets.token_hex(6)}",
                kind="adapted",
                parent=BASE,
                package=served.model.digest,
                content=head.content(),
                owner=owner,
                note="; ".join([f"{len(labels)} examples of {len(head.classes)} classes", *notes]),
            )
            dropped = self.state.add_version(row, most=self.limits.versions, used=served.taken_uses())
            if dropped is None:
                raise Refusal(409, NO_ROOM)
            self._remember(served, row.version, head, owner)
            for version in dropped:
                served.heads.pop(version, None)
            return {
                "model_name": name,
                "model_version": row.version,
                "classes": list(head.classes),
                "examples": len(labels),
                "package": served.model.digest,
                "shared": shared,
                "way": way,
                "dropped": dropped,
                "notes": notes,
                **masked,
                "seconds": round(time.perf_counter() - began, 6),
            }

        try:
            return await asyncio.get_running_loop().run_in_executor(self._work, work)
        except StoreError as error:
            raise Refusal(503, f"the version was not stored: {error.what}", retry_after=5.0) from error
        except MapstoError as error:
            raise Refusal(400, str(error)) from error

    def job(self, name: str, id_: str, caller: Caller) -> dict[str, Any]:
        """How far a job of the caller's tenant is."""
        model = self.model(name)
        job = self.jobs.find(name, id_, tenant=caller.tenant)
        if job is None:
            raise Refusal(404, f"model '{name}' has no job '{short(id_)}'")
        found = {**_told(job), "created": job.created, "changed": job.changed}
        if job.masked:
            found["masked"] = job.masked
        if job.package != model.digest:
            return {
                **found,
                "state": "failed",
                "error": "the package was replaced after this was asked for; adapt again",
            }
        if job.state == "done":
            return {**found, "model_version": job.version, "dropped": list(job.dropped), "note": job.note}
        return {**found, "error": job.note} if job.state == "failed" else found

    async def feedback(self, name: str, given: Sequence[Feedback], caller: Caller) -> list[dict[str, Any]]:
        """Store labels; what is returned is stored durably, or was before."""
        served = self._served(name)
        signature = served.model.signature
        if served.kept is None or not (served.model.adapts or signature.answers == "classes"):
            raise Refusal(409, "the model does not answer with classes, so that no labels are taken")
        self.charge(caller, len(given) - 1)
        rows: list[FeedbackRow] = []
        for request, group in itertools.groupby(given, lambda each: each.request_id):
            own = list(group)
            if request:
                kept = served.kept.find(request, [each.row for each in own], tenant=caller.tenant)
                await self._load_heads(served, {each.version for each in kept})
                events = [f"{request}/{each.row}" for each in own]
                rows += [self._row(served, *each, caller) for each in zip(own, events, kept, strict=True)]
            else:
                rows += [await self._row_of_inputs(served, each, caller) for each in own]
        positions, masked = await self.writer.append(rows)
        stored = sum(position > 0 for position in positions)
        self.observe_feedback(name, stored, sum(position == 0 for position in positions))
        found: list[dict[str, Any]] = [
            {"event": row.event, "stored": True}
            if position > 0
            else {"event": row.event, "stored": False, "reason": _NOT_STORED[position]}
            for row, position in zip(rows, positions, strict=True)
        ]
        for number in masked:
            found[number]["masked"] = True
        return found

    def promote(self, name: str, version: str, caller: Caller, *, why: str = "") -> str:
        """Let a version answer; the one that did before. Raises `Refusal` (409) where another was promoted meanwhile."""
        served = self._served(name)
        read = self.state.active(name)
        if version == (read or BASE):  # so that asking twice does not lose the way back
            return self.state.active_before(name) or BASE
        if version != BASE:
            _, owner = self._load(served, version)
            if owner not in (None, caller.tenant):
                raise self._no_version(served, version)
            if owner is not None:
                raise Refusal(409, 'a private version answers only its owner; adapt with "shared": true to promote it')
        if not self.state.promote(name, version, read=read, why=why or f"{PROMOTED} by {caller.name}"):
            raise Refusal(409, f"another version than '{read or BASE}' answers now; look again")
        self.refresh()
        return read or BASE

    def roll_back(self, name: str, caller: Caller) -> tuple[str, str]:
        """Let the version before answer again: which did, and which does now."""
        served = self._served(name)
        before = self.state.active_before(name) or BASE
        if not self.state.active(name):
            raise Refusal(409, "nothing was promoted, so that there is nothing to roll back")
        row = self.state.version(name, before)
        if row is not None and row.package != served.model.digest:
            raise Refusal(
                409, f"the version before, '{before}', stands on another package; promote one of this package"
            )
        return self.promote(name, before, caller, why=f"{ROLLED_BACK} by {caller.name}"), before

    async def closed(self) -> None:
        """Waits for what is running, and stores what was acknowledged."""
        for served in self._models.values():
            await served.model.batcher.closed()
        self._work.shutdown(wait=True)
        self._reading.shutdown(wait=True)
        await asyncio.get_running_loop().run_in_executor(None, self.writer.close)

    # -- private

    def _overwrite_left(self, path: Path, erasures: Sequence[tuple[str, bytes, float]], *, due: bool) -> None:
        """Overwrite what is to go in a ring that nobody writes any more."""
        ring = opened_ring(path, "r+")
        if ring is None:
            return
        for _, tenant, until in erasures:
            if tenant:
                erase_in(ring, tenant, until=until)
        if due:
            erase_in(ring, None, until=time.time() - self.limits.kept_seconds)

    def _kept(self, model: ServedModel) -> KeptAnswers | None:
        spec = model.signature.inputs[0]
        row = model.watched(np.zeros(model.signature.input_shape(1), spec.dtype), model.tried())
        if row is None:
            return None
        return KeptAnswers(
            self._folder / model.name / model.digest[:16],
            worker=self._worker,
            width=row.shape[1],
            most=self.limits.kept,
            seconds=self.limits.kept_seconds,
        )

    def _served(self, name: str) -> _Served:
        served = self._models.get(name)
        if served is None:
            raise Refusal(404, f"there is no model '{short(name)}'; the models are {few(list(self._models))}")
        return served

    def _head(self, served: _Served, version: str, caller: Caller) -> tuple[str, VersionHead | None]:
        """The version that is asked for, or the active one, and its head; None for the package's own."""
        chosen = version or served.active
        if chosen == BASE:
            return BASE, None
        held = served.heads.get(chosen)
        if held is None:
            held = self._load(served, chosen)
        else:
            served.heads.move_to_end(chosen)
        served.used.add(chosen)
        head, owner = held
        if owner is not None and owner != caller.tenant:
            raise self._no_version(served, chosen)
        return chosen, head

    async def _load_heads(self, served: _Served, versions: set[str]) -> None:
        """Have the heads of versions in memory, as far as there are any, so that it is known which classes they gave."""
        for version in versions - {"", BASE, *served.heads}:
            with suppress(Refusal, StoreError):  # forgotten meanwhile: what was answered is not known any more
                await asyncio.to_thread(self._load, served, version)

    def _load(self, served: _Served, version: str) -> tuple[VersionHead, str | None]:
        held = served.heads.get(version)
        if held is not None:
            return held
        row = self.state.version(served.model.name, version)
        if row is None or row.package != served.model.digest:
            raise self._no_version(served, version)
        return self._remember(served, version, VersionHead.of(row.content), row.owner)

    def _remember(
        self, served: _Served, version: str, head: VersionHead, owner: str | None
    ) -> tuple[VersionHead, str | None]:
        served.heads[version] = (head, owner)
        while len(served.heads) > self.limits.heads:
            oldest = next(name for name in served.heads if name != served.active)
            del served.heads[oldest]
        return head, owner

    def _no_version(self, served: _Served, version: str) -> Refusal:
        return Refusal(404, f"model '{served.model.name}' has no version '{short(version)}'")

    def _submitted(
        self,
        model: ServedModel,
        features: Any,
        labels: Sequence[str],
        caller: Caller,
        *,
        way: str,
        shared: bool,
        masked: int = 0,
    ) -> dict[str, Any]:
        """A new job, as its caller is told of it."""
        if features.nbytes > self.limits.job_bytes:
            most = self.limits.job_bytes // (4 * features.shape[1])
            raise Refusal(
                413, f"{len(features)} examples are too many for a job: at most {most} of this model are taken"
            )
        classes, numbers = numbered(features, labels)
        content = Support(
            np.ascontiguousarray(features, np.float32).tobytes(), features.shape[1], numbers.tolist(), [*classes]
        )
        job = Job(
            id=f"j-{secrets.token_hex(8)}",
            model=model.name,
            tenant=caller.tenant,
            way=way,
            shared=shared,
            package=model.digest,
            masked=masked,
            content=msgspec.msgpack.encode(content),
        )
        _refuse_full(self.jobs.submit(job, own=self.limits.jobs, all_=self.limits.all_jobs), self.limits)
        told = {"classes": list(classes), "examples": len(labels), "shared": shared, "notes": _notes(features, labels)}
        return {**_told(job), **told}

    def _require_place(self, caller: Caller) -> None:
        """Raises `Refusal` (429) where another job has no place, before anything is computed for it."""
        full = self.jobs.full(caller.tenant, own=self.limits.jobs, all_=self.limits.all_jobs)
        _refuse_full(full, self.limits)

    def _deadline(self, asked: Asked) -> float:
        """Seconds, the request's ``timeout`` in microseconds where it has one."""
        wanted = asked.parameters.get("timeout")
        if wanted is None:
            return self.limits.deadline
        if isinstance(wanted, (int, float)) and not isinstance(wanted, bool) and 0 < wanted < 1e18:
            return min(self.limits.deadline, wanted / 1e6)
        raise Refusal(400, f"timeout is a number of microseconds above 0, not {short(repr(wanted))}")

    async def _row_of_inputs(self, served: _Served, given: Feedback, caller: Caller) -> FeedbackRow:
        """A label that comes with its input."""
        if not given.inputs:
            raise Refusal(400, "give the request_id of an answer, or the inputs that the label is for")
        samples = served.model.samples(given.inputs)
        if len(samples) != 1:
            raise Refusal(400, f"a label is for one sample, and the inputs hold {len(samples)}")
        deadline = time.perf_counter() + self.limits.deadline
        found = await served.model.infer(served.model.to_keep(samples), deadline=deadline, key=caller.name)
        if found.features is None:
            raise Refusal(
                409, "the model does not learn, so that it takes labels for its answers alone: give a request_id"
            )
        event = f"k/{given.idempotency_key}" if given.idempotency_key else f"i/{secrets.token_hex(12)}"
        return self._row(served, given, event, Kept(found.features[0], "", -1, time.time()), caller)

    def _row(self, served: _Served, given: Feedback, event: str, kept: Kept, caller: Caller) -> FeedbackRow:
        label = given.label.strip()
        if not label or len(label) > _LONGEST_LABEL:
            raise Refusal(400, f"a label is a text of 1 to {_LONGEST_LABEL} characters, not of blanks alone")
        if not np.isfinite(kept.features).all():
            raise Refusal(400, "the label is for an answer from NaN or infinity, of which nothing can be learnt")
        if np.abs(kept.features).max(initial=0.0) > _LARGEST:
            raise Refusal(
                400, f"the label is for an input whose features are beyond {_LARGEST:g}, of which nothing can be learnt"
            )
        classes: Sequence[str] = served.model.signature.classes or ()
        if kept.version not in ("", BASE):
            held = served.heads.get(kept.version)
            classes = held[0].classes if held is not None else ()
        return FeedbackRow(
            model=served.model.name,
            event=event,
            tenant=caller.tenant,
            version=kept.version,
            label=label,
            answer=classes[kept.answer] if 0 <= kept.answer < len(classes) else "",
            features=np.ascontiguousarray(kept.features, np.float32).tobytes() if served.model.adapts else b"",
            package=served.model.digest,
            caller=caller.name,
        )


def _require_few(labels: Sequence[str], most: int) -> None:
    """Raises `Refusal` (413) for more examples and classes than memory and time are there for."""
    if len(labels) * len(set(labels)) > most:
        raise Refusal(
            413,
            f"{len(labels)} examples of {len(set(labels))} classes are too many: at most {most} of one times the other are taken",
        )


def _features(model: ServedModel, inputs: Sequence[Given], labels: Sequence[str]) -> Any:
    """Features (N, D) of the examples of a support set. Raises `Refusal` (400) where it is none."""
    samples = model.samples(inputs)
    if len(samples) != len(labels):
        raise Refusal(400, f"{len(samples)} examples but {len(labels)} labels; give one a sample")
    if len(set(labels)) > _MOST_CLASSES:
        raise Refusal(400, f"at most {_MOST_CLASSES} classes are taken")
    found = model.embedded(model.to_keep(samples))
    if np.abs(found).max(initial=0.0) > _LARGEST:
        raise Refusal(
            400, f"an example has features beyond {_LARGEST:g}, of which nothing can be learnt; check its numbers"
        )
    return found


def _count_masked(given: Sequence[str], labels: Sequence[str]) -> dict[str, int]:
    """What an answer says of labels that masking changed; nothing where there is none."""
    count = sum(label != before for before, label in zip(given, labels, strict=True))
    return {"masked": count} if count else {}


def _merged(given: Sequence[str], labels: Sequence[str]) -> list[str]:
    """What is to be said where masking made classes one. Raises `Refusal` (400) where it left only one of several."""
    before, after = len(set(given)), len(set(labels))
    if after == before:
        return []
    found = entities_in(given, labels)
    what, alike = ", ".join(found), ", ".join(each for each in found if any(f"<{each}>" in label for label in labels))
    if after == 1:
        other = f", or have the service hash {alike} instead of masking it" if alike else ""
        raise Refusal(
            400,
            f"after masking ({what}) the {before} classes of the examples are one, '{short(labels[0])}': give labels without "
            f"personal data{other}",
        )
    return [f"after masking ({what}) the {before} classes of the examples are {after}"]


def _notes(features: NDArray[np.float32], labels: Sequence[str]) -> list[str]:
    """What is odd about examples that can be learnt from all the same."""
    classes: dict[bytes, set[str]] = {}
    for row, label in zip(features, labels, strict=True):
        classes.setdefault(row.tobytes(), set()).add(label)
    double = sum(len(each) > 1 for each in classes.values())
    if not double:
        return []
    return [f"{double} of them {'stands' if double == 1 else 'stand'} under more than one class, alike to the model"]


def _way(asked: Asked) -> str:
    way = asked.parameters.get("way", _RIDGE)
    if way != _RIDGE and way not in WAYS:
        raise Refusal(400, f"there is no way '{short(str(way))}' to adapt; the ways are {', '.join((_RIDGE, *WAYS))}")
    return str(way)


def _told(job: Job) -> dict[str, Any]:
    return {"job": job.id, "model_name": job.model, "state": job.state, "way": job.way}


def _refuse_full(full: str, limits: Limits) -> None:
    if full:
        whose = f"{limits.jobs} of your jobs" if full == "own" else "as many jobs as are taken"
        raise Refusal(429, f"{whose} wait or run; ask again when one has ended", retry_after=5.0, reason="jobs")


def _unobserved(model: str, stored: int, known: int) -> None:
    """Nobody asks."""


def _uncharged(caller: Caller, labels: int) -> None:
    """Nobody counts."""


def _labels(asked: Asked) -> tuple[list[str], Sequence[Given]]:
    """The labels of a support set, the input ``label`` or the parameter ``labels``, and its other inputs."""
    named = asked.parameters.get("labels")
    if named is not None:
        if not isinstance(named, list) or not all(isinstance(each, str) for each in cast("list[Any]", named)):
            raise Refusal(400, "labels are a list of texts, the class of each example")
        others, found = asked.inputs, cast("list[str]", named)
    else:
        others = [given for given in asked.inputs if given.name != LABEL]
        own = [given for given in asked.inputs if given.name == LABEL]
        if len(own) != 1 or own[0].datatype != "BYTES":
            raise Refusal(
                400,
                f"a support set has an input '{LABEL}' of type BYTES, the class of each example, or the parameter labels",
            )
        found = [value.decode("utf-8", "replace") for value in tensor(own[0]).ravel().tolist()]
    if not others:
        raise Refusal(400, "a support set has the examples beside their labels")
    if any(not label.strip() or len(label) > _LONGEST_LABEL for label in found):
        raise Refusal(400, f"a label is a text of 1 to {_LONGEST_LABEL} characters, not of blanks alone")
    if any("\0" in label for label in found):
        raise Refusal(400, "a label holds the character U+0000")
    return found, others
