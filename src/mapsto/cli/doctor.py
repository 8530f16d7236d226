"""``mapsto doctor``: what this machine has and lacks."""

from __future__ import annotations

import os
import re
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from mapsto.cli.app import JsonOption, StoreOption, app, print_json, print_text
from mapsto.errors import StoreError

__all__ = ["doctor_report", "extras"]


@app.command()
def doctor(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Say what is installed, which device there is, how the store is, what is missing and how to get it.

    Example: mapsto doctor
    """
    tree = doctor_report(store)
    if as_json:
        print_json(tree)
        return
    for section, rows in tree.items():
        print_text(section)
        for key, value in rows.items():
            print_text(f"  {key:<26} {value}")


_NEED_OF_EXTRA = re.compile(r"([\w.-]+)[^;]*;.*\bextra\s*==\s*['\"]([\w.-]+)['\"]")


def extras() -> dict[str, tuple[str, ...]]:
    """Each extra and the packages that it installs, as the installed mapsto says; empty where mapsto is not installed."""
    try:
        found: dict[str, list[str]] = {name: [] for name in metadata("mapsto").get_all("Provides-Extra") or ()}
        needs = [_NEED_OF_EXTRA.match(need) for need in requires("mapsto") or ()]
    except PackageNotFoundError:
        return {}
    for need in needs:
        if need is not None:
            found.setdefault(need[2], []).append(need[1])
    return {name: tuple(packages) for name, packages in found.items()}


def _native_learners() -> str:
    """Whether the learners that are C++ can run here; where there is none yet it is compiled."""
    from mapsto.errors import DomainError
    from mapsto.native.tabular import PREBUILT, tabular_library

    try:
        place = tabular_library()
    except DomainError as error:
        return f"missing: {error}"
    return f"there, {'prebuilt: ' + place.stem if place.parent == PREBUILT else 'compiled on this machine'}"


def _native_augmentation() -> str:
    """Whether images are changed by C++; where there is none yet it is compiled."""
    from mapsto.native.image_steps import ImageSteps

    missing = ImageSteps.kept().missing
    return "there" if missing is None else f"missing, so images are changed more slowly, to the same bytes: {missing}"


def doctor_report(store: str | None = None) -> dict[str, dict[str, str]]:
    """Sections of name → finding; `store` is the place of the one to look at, by default the usual one."""
    import torch

    from mapsto.data.io.download import data_folder
    from mapsto.native.compilation import missing, passed_over

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return ""

    devices = {"cpu": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {_cpu_features()}"}
    reason = missing()
    devices["compiled kernels"] = "there" if reason is None else f"missing, so training is slower: {reason}"
    if passed_over():
        devices["compiled kernels"] += f" ({'; '.join(passed_over())})"
    devices["learners of streams"] = _native_learners()
    devices["image augmentation"] = _native_augmentation()
    devices["cuda"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none (torch sees no CUDA device)"
    optional: dict[str, str] = {}
    for extra, packages in extras().items():
        lacking = [package for package in packages if not installed(package)]
        remedy = f"missing {', '.join(lacking)}: pip install 'mapsto[{extra}]'"
        optional[extra] = remedy if lacking else "installed: " + ", ".join(f"{p} {installed(p)}" for p in packages)
    core = ("mapsto", "torch", "lightning-fabric", "onnxruntime", "onnx", "scikit-learn", "pydantic")
    folder = data_folder()
    fetched, given = "comes when first used, or put it there", "put it there; only recipes that name it need it"
    sets = {
        "omniglot": ("omniglot-py", fetched),
        "cifar10": ("cifar-10-batches-bin", fetched),
        "cifar100": ("cifar-100-binary", fetched),
        "class splits": ("splits", given),
        "weights": ("weights", given),
    }
    data = {"folder": f"{folder}{'' if folder.is_dir() else ' (not there; set MAPSTO_DATA, or let mapsto download)'}"}
    data |= {
        name: "there" if (folder / part).exists() else f"not there: {folder / part} ({remedy})"
        for name, (part, remedy) in sets.items()
    }
    return {
        "Packages": {package: installed(package) or "missing" for package in core},
        "Devices": devices,
        "Extras": optional,
        "Data": data,
        "Store": _store_report(store),
    }


def _store_report(place: str | None) -> dict[str, str]:
    from mapsto.store import Store, default_store

    shown = {"place": place or str(default_store())}
    try:
        return shown | Store(place).condition()
    except StoreError as error:
        return shown | {"writable": f"no: {error}"}


def _cpu_features() -> str:
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text(encoding="utf-8").split()) if info.exists() else set[str]()
    found = [name for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if name in flags]
    return ", ".join(found) or "no vector extensions known"
