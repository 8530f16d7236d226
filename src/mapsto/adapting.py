"""From a learner on disk and a folder of a few examples to a package: what ``mapsto adapt`` does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mapsto.errors import DataError, StoreError
from mapsto.kinds import Network

if TYPE_CHECKING:
    from mapsto.kinds import Dataset, Package
    from mapsto.mapping import Context

__all__ = ["adapt_to", "examples_in", "find_learner"]


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
    from mapsto.nn import portable

    for folder in (place, place / "learner", place / "package" / "learner"):
        if label is None and (folder / "network.json").is_file():
            return portable.load(
                folder, hashes=_hashes(folder)
            ), folder.name if folder.name != "learner" else folder.parent.name
    if not (place / "report.json").is_file() and not place.is_file():
        raise DataError(
            "no learner is here",
            where=str(place),
            hint="give the --out folder of a run that trained one (see `mapsto list recipes`), or a package with learner/",
        )
    return _of_run(place, store, label)


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
    from mapsto import report as reports
    from mapsto.store import Store

    steps = cast("list[dict[str, Any]]", reports.load(place)["steps"])
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
    """The data set in a folder of class folders, an ``.npz`` archive, or a CSV or Parquet table."""
    from mapsto import discovery

    preprocessing = network.signature.preprocessing
    if place.is_dir():
        if preprocessing.kind != "image":
            raise DataError(
                "this learner takes rows of numbers, not images",
                where=str(place),
                hint="give a table or an .npz archive",
            )
        return discovery.find("data", "images")(folder=str(place)).read_for(preprocessing)
    suffix = place.suffix.lower()
    if suffix == ".npz":
        return discovery.find("data", "arrays")(file=str(place))
    if suffix in (".csv", ".parquet"):
        return discovery.find("data", "table")(file=str(place))
    what = "there is no such folder or file" if not place.exists() else f"files of type '{suffix}' are not read here"
    raise DataError(
        what, where=str(place), hint="give a folder with a folder of images for each class, an .npz archive or a table"
    )


def adapt_to(network: Network, data: Dataset, ctx: Context) -> tuple[Package, dict[str, Any]]:
    """The adapted network as a package, and what it came to: classes, examples, how many of them it gets right."""
    from mapsto import discovery

    samples = ctx.dataset(data)
    adapted: Network = ctx.apply(discovery.find("mappings", "adapt.learner")(data=data), network)
    report = ctx.apply(discovery.find("mappings", "evaluate.accuracy")(data=data), adapted)
    package: Package = ctx.apply(discovery.find("mappings", "export.onnx")(data=data), adapted)
    counts = {name: int((samples.labels == number).sum()) for number, name in enumerate(samples.classes)}
    method = network.adaptation.method if network.adaptation is not None else "centroid"
    found = {
        "method": method,
        "classes": counts,
        "examples": len(samples),
        "right_of_examples_percent": round(report.metrics["accuracy"].value, 2),
        "parity": json.loads(package.files["manifest.json"].read_text(encoding="utf-8"))["parity"],
    }
    return package, found
