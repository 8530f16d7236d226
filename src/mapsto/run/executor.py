"""The executor: runs a recipe over a store, so that nothing is computed twice and nothing is lost.

Each step has a key; a key with a record is a hit, decided without opening anything. A missing one is computed by the one holder of
its lease. A process is checkpointed as it goes. Killed anywhere, the same command goes on from there.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Mapping as AbcMapping
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from mapsto.context import Context, Numerics
from mapsto.data.io.download import NotDownloaded, offline
from mapsto.errors import MapstoError, SpecError, StepError, StoreError, is_environment_error, nearest
from mapsto.kinds import Dataset, Forked, Frozen, Network, Package, Stream, Tasks
from mapsto.mapping import (
    Chain,
    Fork,
    Labelled,
    Lazy,
    Mapping,
    Observe,
    Ref,
    absent,
    fields_of,
    labels_in,
    left_out_text,
    refusal,
)
from mapsto.native import compilation
from mapsto.process import Process
from mapsto.recipe.document import Recipe
from mapsto.recipe.reader import load_recipe
from mapsto.recipe.writer import node_of
from mapsto.run.attachments import report_of
from mapsto.run.contents import data_of, names_of, unbounded
from mapsto.run.metrics_log import NO_EVENTS, MetricsLog, writes_events
from mapsto.run.result import Handle, Listener, Published, RunResult, StepResult, path_of, slug, summary_of
from mapsto.run.step_context import StepContext, Team, logged_to
from mapsto.run.verdict import Ground, compares, grounds, judged, of_package, teacher_of, trains
from mapsto.store import Record, Store, digest, disk_error, encode, measured_of, network_digest

__all__ = ["Executor", "execute"]


CHECKPOINT_SECONDS = 5.0
"""At most this much work of a process is lost to a kill, unless a checkpoint takes longer than a twentieth of it."""


BLOCK_SIZE = 256
"""Events that a stream is asked for at a time; it decides no result."""


class Executor:
    """Runs mappings over a store for one seed and one numerics policy."""

    def __init__(
        self,
        store: Store,
        *,
        seed: int = 0,
        numerics: Numerics | None = None,
        force: Iterable[str] = (),
        listener: Listener | None = None,
        logs: Path | None = None,
        plan: bool = False,
        publish_every: int | None = None,
        block_size: int = BLOCK_SIZE,
    ) -> None:
        self.store = store
        self.seed = seed
        self.numerics = numerics or Numerics()
        self.force = set(force)
        self.team = Team(self.numerics, plan=plan)
        self.listener = listener if listener is not None and self.team.leads else Listener()
        self.logs = logs if self.team.leads else None
        self.plan = plan
        self.checkpoint_seconds = float(os.environ.get("MAPSTO_CHECKPOINT_SECONDS", CHECKPOINT_SECONDS))
        self.publish_every = publish_every
        self.block_size = block_size
        self.published: list[Published] = []
        self.on_publish: Callable[[], None] = lambda: None
        """Called after a result was published."""
        self.steps: list[StepResult] = []
        self.labels: dict[str, Handle] = {}
        self._sources: list[tuple[Mapping[Any, Any], Handle]] = []
        self._by_key: dict[str, Handle] = {}
        self._nested = 0
        self._forced: set[str] = set()
        self._mappings: list[Mapping[Any, Any]] = []
        self._given: list[Handle] = []
        self._training_follows: list[bool] = []
        self._said_uncompared = False
        self._said_no_events = False
        self._leaves_out = False
        self._branch: tuple[str, ...] = ()

    @cached_property
    def without_kernels(self) -> str | None:
        """Why there are no compiled kernels; None where there are."""
        return self.team.share(compilation.missing(self.listener.note) if self.team.leads else None)

    # -- references

    def label(self, label: str) -> Handle:
        """What a label stands for. Raises `SpecError` with the nearest known."""
        if label not in self.labels:
            raise SpecError(f"no earlier step is labelled '{label}'", hint=nearest(label, self.labels))
        return self.labels[label]

    def source(self, mapping: Mapping[Any, Any]) -> Handle:
        """What a source mapping gives, run once however often it is referred to."""
        for known, handle in self._sources:
            if known is mapping or known == mapping:
                return handle
        self._nested += 1
        outer, self._training_follows = self._training_follows, []
        try:
            handle = self.run(mapping, _NOTHING)
        finally:
            self._training_follows = outer
            self._nested -= 1
        self._sources.append((mapping, handle))
        return handle

    # -- running

    def run(
        self, mapping: Mapping[Any, Any], incoming: Handle, *, label: str | None = None, of: int | None = None
    ) -> Handle:
        """Run a mapping on a value; compound mappings run part by part."""
        if isinstance(mapping, Chain):
            return self._chain(mapping, incoming, label, of)
        if isinstance(mapping, Labelled):
            handle = self.run(mapping.mapping, incoming, label=mapping.label, of=of)
            self.labels[mapping.label] = handle
            return handle
        if isinstance(mapping, Observe):
            for name, report in mapping.reports.items():
                self.run(report, incoming, label=name, of=incoming.steps[0] if of is None and incoming.steps else of)
            return incoming
        if isinstance(mapping, Fork):
            return self._fork(mapping, incoming)
        return self._leaf(mapping, incoming, label, of)

    def _chain(self, mapping: Chain[Any, Any], incoming: Handle, label: str | None, of: int | None) -> Handle:
        """One step after another; the label is the last one's."""
        start, outer = incoming, self._leaves_out
        last = max((at for at, step in enumerate(mapping.steps) if not isinstance(step, Observe)), default=-1)
        for place, step in enumerate(mapping.steps):
            self._training_follows.append(any(trains(later) for later in mapping.steps[place + 1 :]))
            self._leaves_out = outer or mapping.chosen_from(place)
            try:
                incoming = self.run(step, incoming, label=label if place == last else None, of=of)
            finally:
                self._training_follows.pop()
                self._leaves_out = outer
        if start is _NOTHING:
            self._sources.append((mapping, incoming))
        return incoming

    def _fork(self, mapping: Fork[Any], incoming: Handle) -> Handle:
        parts: dict[str, Handle] = {}
        left_out: dict[str, str] = {}
        outer = self._branch
        for at, (label, branch) in enumerate(mapping.branches.items()):
            self._branch = (*outer, label)
            try:
                parts[label] = self.run(branch, incoming, label=label)
            except StepError as error:
                refused = refusal(error)
                if not self._leaves_out or refused is None or (not parts and at == len(mapping.branches) - 1):
                    raise
                known = str(refused) in left_out.values()  # as of a fold, of which the whole could not be made either
                left_out |= dict.fromkeys(labels_in(label, branch), str(refused))
                self._leave_out(left_out_text(label, refused), "note" if known else "warning")
            finally:
                self._branch = outer
        for name, why in left_out.items():
            self.labels[name] = Handle(
                digest=digest.digest_json({"left_out": why}), kind="Network", steps=(), load=absent(name, why)
            )
        self.labels.update(parts)
        for label, part in parts.items():
            for step in part.steps:
                self.steps[step].label = self.steps[step].label or label
        digests = {label: part.digest for label, part in parts.items()}
        known = None if None in digests.values() else digest.digest_json({"kind": "Forked", "parts": digests})
        return Handle(
            digest=known,
            kind="Forked",
            steps=tuple(step for part in parts.values() for step in part.steps),
            load=Lazy(lambda: Forked(parts={label: part.load() for label, part in parts.items()}, left_out=left_out)),
        )

    def _leave_out(self, text: str, level: str) -> None:
        """Say it of the step that failed."""
        step = next(step for step in reversed(self.steps) if step.status == "failed")
        self._say(step, level, text)
        self.listener.finished(step)

    def _leaf(self, mapping: Mapping[Any, Any], incoming: Handle, label: str | None, of: int | None) -> Handle:
        used: list[int] = list(incoming.steps)

        try:
            key = self._key(mapping, incoming, used)
        except _Unknown:
            key = ""
        except NotDownloaded:
            if not self.plan:
                raise
            key = ""
        if self._nested and key in self._by_key:
            return self._by_key[key]
        step = StepResult(
            id=len(self.steps),
            name=mapping.name,
            label=label,
            kind="observe" if of is not None else "step",
            of=of,
            inputs=tuple(dict.fromkeys(used)),
            values=len(set(incoming.steps)),
            fields=_shown(mapping),
            key=key,
            branch=self._branch,
        )
        self.steps.append(step)
        self._mappings.append(mapping)
        self._given.append(incoming)
        record = self.team.share(self.store.record(key) if key else None)
        if record is not None and self._is_forced(step):
            if not self.plan and self.team.leads:
                self.store.forget(key)
            record = None
        if record is not None:
            step.hit, step.status = True, "hit"
            self.store.use(record.digest)
            self._repeat(step, record)
        elif self.plan:
            self.listener.finished(step)
            return Handle(digest=None, kind="", steps=(step.id,), load=_not_run)
        else:
            self.listener.started(step)
            try:
                record = self._compute(mapping, incoming, step)
            except StepError:
                step.status = "failed"
                raise
            step.status = "hit" if step.hit else step.status if step.status == "stopped" else "ran"
        step.digest, step.kind_out, step.seconds = record.digest, record.kind, record.seconds
        step.measured, step.curves = record.measured, record.curves
        step.warnings, step.notes, step.comparison = record.warnings, record.notes, record.comparison
        step.account, step.attached = record.account, record.attached
        self._judge(step)
        self.listener.finished(step)
        final = record
        handle = Handle(
            digest=final.digest,
            kind=final.kind,
            steps=(step.id,),
            load=Lazy(lambda: self.store.load(final.digest, measured=final.measured)),
        )
        self._by_key[key] = handle
        return handle

    def observed(self, mapping: Mapping[Any, Any], network: Network) -> Any:
        """What a mapping says of a network, under the very key that an observation of it has: measured here, it is there a hit."""
        incoming = Handle(digest=network_digest(network), kind="Network", steps=(), load=lambda: network)
        key = self._key(mapping, incoming, [])
        step = StepResult(id=len(self.steps), name=mapping.name, label=None, kind="observe", key=key)
        record = self.team.share(self.store.record(key) if self.team.leads else None)
        if record is None:
            record = self._compute(mapping, incoming, step)
        return self.store.load(record.digest, measured=record.measured)

    def _key(self, mapping: Mapping[Any, Any], incoming: Handle, used: list[int]) -> str:
        """The key of a step; the steps that it refers to are added to `used`."""

        def resolve(reference: Ref) -> str:
            return self._known(self.label(reference.label), used)

        def source(inner: Mapping[Any, Any] | Network) -> str:
            return network_digest(inner) if isinstance(inner, Network) else self._known(self.source(inner), used)

        return digest.step_key(
            mapping,
            () if incoming is _NOTHING else (self._known(incoming, []),),
            seed=self.seed,
            numerics=self.numerics,
            kernels=self.without_kernels is None,
            resolve=resolve,
            source=source,
        )

    def _repeat(self, step: StepResult, record: Record) -> None:
        """Say again what a step said when it ran."""
        for text in record.warnings:
            self.listener.warned(step, text)
        for text in record.notes:
            self.listener.noted(step, text)

    def _known(self, handle: Handle, used: list[int]) -> str:
        used.extend(handle.steps)
        if handle.digest is None:
            raise _Unknown
        return handle.digest

    def _is_forced(self, step: StepResult) -> bool:
        named = self.force & {step.name, step.label or step.name, path_of(self.steps, step)}
        self._forced |= named
        return bool(named)

    def unused_force(self) -> set[str]:
        """Names given to `force` that no step has."""
        known: set[str | None] = {name for s in self.steps for name in (s.name, s.label)}
        return {name for name in self.force - self._forced if name not in known}

    def _compute(self, mapping: Mapping[Any, Any], incoming: Handle, step: StepResult) -> Record:
        place = f"step {step.id + 1}, {step.name}{f' ({step.label})' if step.label else ''}"

        def waiting(holder: str) -> None:
            self.listener.note(f"{place}: waiting for {holder}, which is computing it")

        with ExitStack() as stack:
            holder = True
            if self.team.leads:
                holder = stack.enter_context(self.store.lease(step.key, waiting=_once(waiting)))
            known, holder = self.team.share((self.store.record(step.key), holder))
            if not holder or known is not None:
                if known is None:
                    raise StepError(
                        "the process that was computing it gave it up", where=place, hint="run the command again"
                    )
                step.hit = True
                self._repeat(step, known)
                return known
            context = stack.enter_context(closing(StepContext(self, step)))
            if isinstance(mapping, Process) and self.without_kernels is not None and self.numerics.device == "cpu":
                context.note(f"without compiled kernels, so slower, and other in the last bits: {self.without_kernels}")
            for text in compilation.passed_over() if isinstance(mapping, Process) else ():
                context.note(text)
            stack.enter_context(logged_to(context))
            try:
                value = None if incoming is _NOTHING else incoming.load()
                if mapping.uses_torch or value is not None:
                    _set_threads(self.numerics)
                    context.seed_everything(mapping.name)
                with context.giving(value):
                    result = mapping.apply(value, context)
                if not self.team.leads:
                    return cast("Record", self.team.share(cast("Any", None)))
                known_digest = self.store.save(result)
                comparison = self._compared(mapping, value, result, step, context)
            except StepError:
                raise
            except MapstoError as error:
                raised = StepError(str(error), where=place)
                raised.exit_code = error.exit_code
                raise raised from error
            except OSError as error:
                if is_environment_error(error):
                    full = disk_error(error, None if error.filename is None else Path(error.filename))
                    raised = StepError(str(full), where=place)
                    raised.exit_code = full.exit_code
                    raise raised from error
                raise StepError(f"{type(error).__name__}: {error}", where=place, hint=_OURS) from error
            except Exception as error:
                if _is_out_of_memory(error):
                    raised = StepError("out of memory", where=place, hint="lower batch_size or use a smaller network")
                    raised.exit_code = 2
                    raise raised from error
                raise StepError(f"{type(error).__name__}: {error}", where=place, hint=_OURS) from error
            record = Record(
                key=step.key,
                digest=known_digest,
                kind=encode(result, lambda _: "")["kind"],
                name=step.name,
                version=type(mapping).version,
                inputs=() if incoming.digest is None else (incoming.digest,),
                seconds=context.seconds,
                created=time.time(),
                measured=measured_of(result),
                curves=context.curves(),
                warnings=tuple(context.warnings),
                notes=tuple(context.notes),
                comparison=comparison,
                account=context.account,
                attached=self.store.save(report_of(context.attached)) if context.attached else "",
            )
            if context.stopped or unbounded(mapping):
                step.status = "stopped"
                self.publish(step, context.reached, result)
            else:
                record = self.store.commit(record)
                self.store.drop_states(step.key)
            return self.team.share(record)

    def publish(self, step: StepResult, n: int, value: Any) -> None:
        """Keep what a process has come to after `n` items under the run."""
        kept = Published(step=path_of(self.steps, step), n=n, digest=self.store.save(value), time=time.time())
        self.published.append(kept)
        self.on_publish()

    # -- what a step made of its network (`mapsto.run.verdict`)

    def _compared(
        self, mapping: Mapping[Any, Any], value: Any, result: Any, step: StepResult, context: Context
    ) -> dict[str, Any]:
        """The figures of a step that may ruin a network, and of what follows one."""
        if isinstance(result, Package) and compares(mapping):
            return {"given": of_package(result)}
        if not isinstance(value, Network) or not isinstance(result, Network):
            return {}
        before = list(self._before(step.id))
        figures: dict[str, Any] = {}
        grounded = list(grounds(mapping, [self._mappings[place] for place in before]))
        if compares(mapping):
            teacher = teacher_of(mapping)
            figures["given"] = _figures(value, result, grounded, context, teacher=teacher)
        first = self._first(step.id)
        if first is not None and first.digest != self._given[step.id].digest:
            figures["first"] = {"digest": first.digest, **_figures(first.load(), result, grounded, context)}
        return figures

    def _before(self, place: int) -> Iterator[int]:
        """The steps that led to a step's value, the nearest first; of a choice the branch that was chosen."""
        handle = self._given[place]
        while handle.steps:
            digest_out = self.steps[place].digest
            same = [number for number in handle.steps if self.steps[number].digest == digest_out]
            place = (same or list(handle.steps))[0]
            yield place
            handle = self._given[place]

    def _first(self, place: int) -> Handle | None:
        """What the first compressing step up to this one was given, or learnt from: the network that all is to be measured by."""
        for number in reversed([place, *self._before(place)]):
            mapping = self._mappings[number]
            if compares(mapping):
                teacher = teacher_of(mapping)
                if isinstance(teacher, Ref):
                    return self.label(teacher.label)
                return self.source(teacher) if isinstance(teacher, Mapping) else self._given[number]
        return None

    def _judge(self, step: StepResult) -> None:
        """Say what a step's comparison came to."""
        figures = step.comparison.get("given")
        if figures is None:
            return
        if "reason" in figures and not self._said_uncompared:
            self._said_uncompared = True
            self._say(step, "note", f"what this step changed could not be measured: {figures['reason']}")
        said = judged(figures, followed=any(self._training_follows))
        if said is not None:
            self._say(step, said.level, said.text)

    def judge_end(self, result: Handle) -> None:
        """Say what the last network of a run lost against the first trained one."""
        for place in result.steps:
            for number in (place, *self._before(place)):
                step = self.steps[number]
                figures = step.comparison.get("first")
                if figures is not None:
                    first = self._first(number)
                    said = judged(figures, followed=False, final=True)
                    if said is not None and first is not None and first.digest == figures["digest"]:
                        self._say(step, said.level, said.text)
                if step.comparison and step.kind_out == "Network":
                    break

    def _say(self, step: StepResult, level: str, text: str) -> None:
        if level == "warning":
            step.warnings = (*step.warnings, text)
            self.listener.warned(step, text)
        else:
            step.notes = (*step.notes, text)
            self.listener.noted(step, text)

    def log_file(self, step: StepResult, rows: Iterable[tuple[int, AbcMapping[str, float]]]) -> Any:
        """A context manager that gives a function which logs one row to CSV and, where it is installed, to TensorBoard."""
        if self.logs is not None and not self._said_no_events and not writes_events():
            self._said_no_events = True
            self.listener.note(NO_EVENTS)
        return MetricsLog(self.logs / slug(self.steps, step) if self.logs is not None else None, rows)


def _figures(
    before: Network, after: Network, grounded: Iterable[Ground], context: Context, *, teacher: Any = None
) -> dict[str, Any]:
    """Two networks on the first samples that fit both; the reason where none does. A comparison never fails a step."""
    from mapsto.nn.profile.comparison import compare

    reason = "neither it nor a step before it has data"
    reference = None if teacher is None else context.network(teacher)
    for ground in grounded:
        try:
            with context.giving(after):
                data = cast("Dataset | Tasks", context.resolve(ground.data, Frozen))
                figures = compare(before, after, data, context, labelled=ground.labelled, reference=reference)
        except Exception as error:  # a foreign network on data of an earlier step may raise what it likes
            reason = f"{type(error).__name__}: {error}"[:200]
            continue
        named = {} if teacher is None or "accuracy" in figures else {"against": "its teacher"}
        return {"on": ground.what, **figures, **named}
    return {"reason": reason}


def _shown(mapping: Mapping[Any, Any]) -> Any:
    """A mapping's fields for people; a network held in memory has no name there."""
    try:
        return next(iter(node_of(mapping).values()), {})
    except SpecError:
        return {name: repr(value)[:80] for name, value in fields_of(mapping).items()}


def _is_out_of_memory(error: Exception) -> bool:
    """Python's own error, CUDA's, or what torch's CPU allocator raises for a size that it cannot give or count."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and bool(
        re.search(r"can't allocate memory|not enough memory|calculation overflow|multiplication overflow", str(error))
    )


def _not_run() -> Any:
    raise StepError("this value was planned, not run")


class _Unknown(Exception):
    """A digest that a plan cannot know, because its step would have to run."""


_NOTHING = Handle(digest=None, kind="nothing", steps=(), load=lambda: None)
_OURS = "this looks like a fault of mapsto or of the mapping: run with MAPSTO_DEBUG=1 for the traceback, and report it"


def _once(call: Callable[[str], None]) -> Callable[[str], None]:
    seen: set[str] = set()

    def first(text: str) -> None:
        if text not in seen:
            seen.add(text)
            call(text)

    return first


def _set_threads(numerics: Numerics) -> None:
    import torch

    if torch.get_num_threads() != numerics.threads:
        torch.set_num_threads(numerics.threads)


def execute(
    recipe: Recipe | Mapping[Any, Any] | str | Path,
    *,
    store: Store | Path | str | None = None,
    seed: int | None = None,
    numerics: Numerics | None = None,
    force: Iterable[str] = (),
    listener: Listener | None = None,
    logs: Path | None = None,
    plan: bool = False,
    publish_every: int | None = None,
    block_size: int = BLOCK_SIZE,
) -> RunResult:
    """Run a recipe, a mapping, a recipe file or a shipped recipe over a store.

    Data are checked before the first step runs: a missing file is an error at once. A process's result so far is kept in the store each
    `publish_every` items (or events of a stream), under the run. Raises `MapstoError`; `StepError` with its cause where a step failed.
    """
    for name, number in (("publish_every", publish_every), ("block_size", block_size)):
        if number is not None and number < 1:
            raise SpecError(f"{name} is {number}", where=f"--{name.replace('_', '-')}", hint="give a number above 0")
    if isinstance(recipe, (str, Path)):
        recipe = load_recipe(recipe)
    elif isinstance(recipe, Mapping):
        recipe = Recipe(steps=recipe)
    place = store if isinstance(store, Store) else Store(store)
    chosen_steps, known = set(force), set(names_of(recipe.steps))
    for name in sorted(chosen_steps):
        if not known & {name, name.rpartition(".")[2], name.partition("#")[0]}:
            raise SpecError(f"--force names no step: {name}", hint=nearest(name, known))
    chosen = recipe.seed if seed is None else seed
    executor = Executor(
        place,
        seed=chosen,
        numerics=numerics,
        force=chosen_steps,
        listener=listener,
        logs=logs,
        plan=plan,
        publish_every=publish_every,
        block_size=block_size,
    )
    for text in recipe.notes:
        executor.listener.note(text)
    started = time.time()
    began = time.monotonic()
    run = RunResult(
        id=f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(started))}-{secrets.token_hex(3)}",
        recipe=recipe,
        seed=chosen,
        numerics=executor.numerics,
        steps=executor.steps,
        started=started,
        seconds=0.0,
        result=_NOTHING,
        store=place,
        leads=executor.team.leads,
    )

    def note_published() -> None:
        """The run names what it has published at once: `gc` must spare it even where the run does not come to its end."""
        run.published, run.seconds = tuple(executor.published), time.monotonic() - began
        place.save_run(summary_of(run))

    executor.on_publish = note_published
    with offline() if plan else place.in_use():
        for data in data_of(recipe.steps):
            try:
                (data.fingerprint if not isinstance(data, Stream) or data.bounded else data.identity)()
            except NotDownloaded as error:
                if not plan:
                    raise
                executor.listener.note(
                    f"not known until it is downloaded: {error.where}; what uses it counts as to be run"
                )
        result = executor.run(recipe.steps, _NOTHING)
        if not plan:
            executor.judge_end(result)
    for name in sorted(executor.unused_force()):
        executor.listener.note(f"--force {name}: no step of this run has that name")
    run.seconds, run.result = time.monotonic() - began, result
    if not plan and run.leads:
        try:
            place.save_run(summary_of(run))
        except StoreError:
            if not run.reused or place.writable:
                raise
            executor.listener.note("the store cannot be written: this run is not listed in it")
    return run
