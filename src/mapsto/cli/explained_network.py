"""The network behind a package and the examples that it was adapted to, for what a package alone does not tell: gradients, and examples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mapsto.errors import DataError, DomainError, StoreError, command
from mapsto.kinds import Network
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.kinds import Dataset, Package, Preprocessing, Samples
    from mapsto.nn.explain.support import Support

__all__ = ["Behind", "Example", "Examples", "behind", "is_adapted", "keep_adapted"]

_KEPT, _DATA = "adapted", "data.json"
"""Folder of an adaptation without a run's record, and the file in it that says where the examples are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Behind:
    """What made a package."""

    network: Network
    """What was exported."""
    data: Any = None
    """The node of the examples that it was adapted to; None where it was not adapted to any."""
    floating: Network | None = None
    """The last network that was not quantized, where the one that was exported is."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A labelled example that an answer rests on."""

    name: str
    """Its file, row, or number among the examples."""
    label: str
    part: float
    """Its part of the answer's lead over the next class; below 0 it speaks for that one."""
    likeness: float
    """Cosine between it and the input, seen from the mean of the examples, -1 to 1."""
    picture: NDArray[np.uint8] | None = None
    """Of an image its pixels (C, H, W)."""

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        numbers = {"part": float(f"{self.part:.4g}"), "likeness": round(self.likeness, 4)}
        return {"name": self.name, "label": self.label, **numbers}


def keep_adapted(folder: Path, network: Network, data: Dataset, package: Package) -> None:
    """Keep an adapted network and where its examples are, for explanations of its package, in ``folder/adapted``."""
    from mapsto.nn.network.serialization import saved
    from mapsto.recipe.writer import node_of
    from mapsto.store import write_atomically

    kept = {"data": _absolute(node_of(data)), "package": _digest(package.files["manifest.json"])}
    files = {**saved(network), _DATA: json.dumps(kept, ensure_ascii=False).encode()}
    for name, content in files.items():
        write_atomically(folder / _KEPT / name, content)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _kept_data(run: Path) -> Any:
    """The node of the examples that `keep_adapted` wrote; None without one, or where it is of another package than the folder's."""
    try:
        kept = json.loads((run / _KEPT / _DATA).read_text(encoding="utf-8"))
        return kept["data"] if kept["package"] == _digest(run / "package" / "manifest.json") else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _absolute(node: Any) -> Any:
    """A data set's node with the paths of this folder whole, so that it is found from any other."""
    if isinstance(node, dict):
        return {
            name: str(Path(value).resolve())
            if name in ("file", "folder") and isinstance(value, str) and Path(value).exists()
            else _absolute(value)
            for name, value in cast("dict[str, Any]", node).items()
        }
    return node


def is_adapted(place: Path) -> bool:
    """Whether the folder of a run, or of its package, tells of examples that a network was adapted to; nothing else is looked at."""
    run = _run_of(place)
    if _kept_data(run) is not None:
        return True
    if not (run / "report.json").is_file():
        return False
    from mapsto.report import build as reports

    try:
        steps = cast("list[dict[str, Any]]", reports.load(run)["steps"])
    except DataError:
        return False
    return any(_adapts(step) for step in steps)


def _run_of(place: Path) -> Path:
    return place if (place / "report.json").is_file() or (place / _KEPT).is_dir() else place.parent


def _adapts(step: dict[str, Any]) -> bool:
    return str(step["name"]).startswith("adapt.") and bool((step.get("fields") or {}).get("data"))


def behind(place: Path) -> Behind:
    """The network behind a run's folder, or its package's.

    Raises
    ------
    DataError
        The folder is no run's, so that there is a package alone, or the run made no network.
    StoreError
        The store does not hold the network any more.
    """
    from mapsto.nn.network import serialization
    from mapsto.report import build as reports
    from mapsto.report.steps_taken import steps_taken

    run = _run_of(place)
    if (data := _kept_data(run)) is not None:
        return Behind(network=serialization.load(run / _KEPT), data=data)
    if not (run / "report.json").is_file():
        raise DataError(
            "here is a package alone, without the run that made it",
            where=str(place),
            hint="give the --out folder of the run",
        )
    steps = cast("list[dict[str, Any]]", reports.load(run)["steps"])
    made = [step for step in steps_taken(steps) if step["kind_out"] == "Network" and not step.get("failed")]
    if not made:
        raise DataError("this run made no network", where=str(run), hint="give the --out folder of another run")
    adapted = [step for step in made if _adapts(step)]
    network = _loaded(made[-1], run)
    floating = None
    if _is_quantized(network):
        earlier = (_loaded(step, run) for step in reversed(made[:-1]))
        floating = next((each for each in earlier if not _is_quantized(each)), None)
    return Behind(network=network, data=adapted[-1]["fields"]["data"] if adapted else None, floating=floating)


def _loaded(step: dict[str, Any], run: Path) -> Network:
    from mapsto.store import Store

    kept = Store(None)
    try:
        return cast("Network", kept.load(step["digest"]))
    except StoreError as error:
        raise StoreError(
            f"the store {kept.root} does not hold the run's networks ({error.what})",
            where=str(run),
            hint="set MAPSTO_STORE to the run's store, or run the recipe again",
        ) from error


def _is_quantized(network: Network) -> bool:
    from mapsto.nn.edits.quantizers import has_quantized_part

    return has_quantized_part(network.module())


class Examples:
    """The examples of an adapted network, ready to say which an answer rests on.

    Raises
    ------
    DataError
        The network was adapted to no examples, or they are no longer where they were.
    DomainError
        Its head cannot be written through them.
    """

    def __init__(self, found: Behind, *, where: str) -> None:
        from mapsto.context import SilentContext
        from mapsto.nn.adapt.features import features
        from mapsto.nn.explain.support import support_of
        from mapsto.nn.network.head import headless
        from mapsto.recipe.nodes import data_from_node

        network = found.floating or found.network
        if network.adaptation is not None:
            raise DomainError(
                "it is a learner, which has learnt from no examples yet",
                where=where,
                hint=command("mapsto adapt {folder} FOLDER_OF_EXAMPLES", folder=where),
            )
        if found.data is None:
            raise DataError(
                "no step of its run adapted a network to labelled examples, so that none can be named",
                where=where,
                hint="explain it without --examples, or adapt a network to examples (adapt.ridge)",
            )
        ctx = SilentContext()
        data: Dataset = data_from_node(found.data)
        with ctx.giving(network):
            samples: Samples = ctx.dataset(data)
        self.classes: Sequence[str] = samples.classes
        self._samples, self._data, self._before = samples, data, network.signature.preprocessing
        self.support: Support = support_of(network, features(network, samples.inputs, ctx), samples.labels)
        self.is_of_floating = found.floating is not None
        module = network.module()
        edit, signature = headless(network, module)
        self._bare = network.with_module(module, *([edit] if edit else []), signature=signature).module()
        self._names: list[str] | None = None

    def said(self) -> str:
        """How sure the parts are, in words."""
        support = self.support
        how = {"votes": "votes of the nearest examples", "class means": "distances to class means"}.get(
            support.how, f"{support.how} regression" if support.how != "linear head" else "a linear head"
        )
        if support.is_exact:
            sure = "exact"
        elif not support.is_one:
            sure = "one of many ways to share it out, as there are more examples than numbers in the embedding"
        else:
            sure = f"approximate: the examples account for {support.accounted:.1%} of the head"
        return f"{how}, {sure}{'; of the network before it was quantized' if self.is_of_floating else ''}"

    def of(self, sample: NDArray[Any], top: int = 3) -> tuple[str, str, float, float, list[Example]]:
        """The answer, the next class, the lead between them, the part of it that is no example's, and the examples that matter most.

        `sample` is prepared, (1, ...). The examples are the `top` that speak most for the answer and the `top` against it.
        """
        import numpy as np
        import torch

        with torch.no_grad():
            embedding = self._bare(torch.as_tensor(sample))[0].numpy()
        found = self.support.evidence(embedding)
        order = np.argsort(-found.examples, kind="stable")
        taken = [place for place in order[:top].tolist() if found.examples[place] > 0]
        taken += [place for place in order[::-1][:top].tolist() if found.examples[place] < 0]
        examples = [
            Example(
                name=self._name(place),
                label=self.classes[int(self.support.labels[place])],
                part=float(found.examples[place]),
                likeness=float(found.likeness[place]),
                picture=self._picture(place),
            )
            for place in taken
        ]
        return self.classes[found.answer], self.classes[found.against], found.lead, found.rest, examples

    def _name(self, place: int) -> str:
        if self._names is None:
            self._names = _names(self._data, self._samples, self._before)
        return self._names[place]

    def _picture(self, place: int) -> NDArray[np.uint8] | None:
        inputs = self._samples.inputs
        is_image = inputs.ndim == 4 and str(inputs.dtype) == "uint8" and inputs.shape[1] in (1, 3)
        return inputs[place] if is_image else None


def _names(data: Dataset, samples: Samples, before: Preprocessing) -> list[str]:
    """Files of a folder of images, texts as the tokenizer has them, rows of a table, else numbers."""
    count = len(samples)
    listing = getattr(data, "_listing", None)
    if listing is not None:
        found = listing()
        if len(found.files) == count:  # where broken ones are left out, places are not theirs
            return [str(path) for _, path in found.files]
    if before.kind == "text" and before.tokenizer_json:
        from mapsto_runtime.preprocessing.texts import tokenizer_of

        tokenizer = tokenizer_of(before)
        return [
            short(" / ".join(tokenizer.decode(part.tolist()) for part in row.reshape(before.texts, -1)), 80)
            for row in samples.inputs
        ]
    what = "row" if before.columns else "example"
    return [f"{what} {number + 1}" for number in range(count)]
