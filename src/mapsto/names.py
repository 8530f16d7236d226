"""What the command line says about names: recipes, fields, benchmarks, and what is installed."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import os
import re
import sys
import textwrap
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any, cast

from mapsto import discovery
from mapsto.errors import DataError, SpecError, StoreError, nearest

__all__ = ["benchmarks", "describe", "doctor_report", "extras", "recipes", "run_benchmark"]

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


def recipes() -> dict[str, str]:
    """Shipped recipes and their titles, read without a YAML parser."""
    found: dict[str, str] = {}
    for path in sorted((Path(__file__).parent / "recipes").glob("*.yaml")):
        titles = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("title:")]
        found[path.stem] = titles[0].removeprefix("title:").strip().strip("\"'") if titles else ""
    return found


def describe(group: str, name: str) -> dict[str, Any]:
    """A mapping or data set: summary, what it takes and gives, and its fields; ``text`` is the same for people."""
    import pydantic

    from mapsto.mapping import Mapping, kind_name

    cls = discovery.find(group, name)
    module_text = (sys.modules[cls.__module__].__doc__ or cls.__doc__ or "").strip()
    schema = pydantic.TypeAdapter(cls).json_schema()
    infos: dict[str, Any] = cast("Any", cls).__pydantic_fields__
    fields: list[dict[str, Any]] = []
    for key, info in infos.items():
        default = None if info.is_required() else info.get_default(call_default_factory=True, validated_data={})
        if dataclasses.is_dataclass(default) and not isinstance(default, type):
            default = dataclasses.asdict(default)
        fields.append(
            {
                "name": key,
                "required": info.is_required(),
                "default": default,
                "schema": schema.get("properties", {}).get(key, {}),
                "description": " ".join((info.description or "").split()),
            }
        )
    tree: dict[str, Any] = {
        "name": name,
        "version": cls.version,
        "doc": module_text,
        "fields": fields,
        "schema": schema,
    }
    lines = [name, ""]
    if issubclass(cls, Mapping):
        tree |= {"takes": kind_name(cls.takes), "gives": kind_name(cls.gives)}
        lines = [f"{name}: {kind_name(cls.takes)} → {kind_name(cls.gives)}", ""]
    lines += [textwrap.indent(module_text, "  "), "", "Fields"]
    for entry in fields:
        value = "required" if entry["required"] else f"default {entry['default']!r}"
        lines.append(f"  {entry['name']}  ({_type_of(entry['schema'])}, {value})")
        lines += textwrap.wrap(entry["description"], 110, initial_indent="      ", subsequent_indent="      ")
    return tree | {"text": "\n".join(lines)}


def _type_of(schema: dict[str, Any]) -> str:
    """A field's type and range in words."""
    if "x-kind" in schema:
        return f"{schema['x-kind']}: $label or {{name: fields}}"
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type_of(part) for part in schema["anyOf"]))
    kind = str(schema.get("type", schema.get("$ref", "value").rpartition("/")[2]))
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is not None or high is not None:
        opening = "(" if "exclusiveMinimum" in schema else "["
        closing = ")" if "exclusiveMaximum" in schema else "]"
        kind += f" in {opening}{'-∞' if low is None else low}, {'∞' if high is None else high}{closing}"
    return kind


def benchmarks() -> dict[str, Path]:
    """The benchmarks of the checkout that the current folder lies in. Raises `DataError` outside one."""
    for folder in (Path.cwd(), *Path.cwd().parents, Path(__file__).resolve().parents[2]):
        if (folder / "benchmarks" / "results").is_dir():
            return {
                path.stem: path
                for path in sorted((folder / "benchmarks").glob("*/*.py"))
                if not path.name.startswith("_")
            }
    raise DataError("benchmarks belong to a checkout", where=str(Path.cwd()), hint="run this inside a clone of mapsto")


def run_benchmark(name: str, *, quick: bool, only: str = "", device: str = "cpu") -> dict[str, Any]:
    """Run ``benchmarks/<area>/<name>.py``'s ``main(quick)``, with `only` and `device` where it knows them, and give its result."""
    known = benchmarks()
    if name not in known:
        raise SpecError(f"unknown benchmark '{name}'", hint=nearest(name, known))
    spec = importlib.util.spec_from_file_location(f"mapsto_benchmark_{name}", known[name])
    if spec is None or spec.loader is None:
        raise DataError("cannot be loaded", where=str(known[name]))
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(known[name].parents[1]))
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    known_to_it = inspect.signature(module.main).parameters
    asked = ({"only": only} if only else {}) | ({"device": device} if device != "cpu" else {})
    lacks = {"only": "has no rows to choose from", "device": "runs on the CPU alone"}
    for option in asked:
        if option not in known_to_it:
            raise SpecError(f"benchmark '{name}' {lacks[option]}", where=f"--{option}", hint="leave it out")
    if device != "cpu":
        from mapsto.mapping import Numerics, make_fabric

        make_fabric(Numerics(device=device))  # which says where there is no such device
    return module.main(quick, **asked)


def doctor_report(store: str | None = None) -> dict[str, dict[str, str]]:
    """Sections of name → finding; `store` is the place of the one to look at, by default the usual one."""
    import torch

    from mapsto.data.folder import data_folder
    from mapsto.nn.native import missing, passed_over

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
    devices["cuda"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none (torch sees no CUDA device)"
    optional: dict[str, str] = {}
    for extra, packages in extras().items():
        lacking = [package for package in packages if not installed(package)]
        remedy = f"missing {', '.join(lacking)}: pip install 'mapsto[{extra}]'"
        optional[extra] = remedy if lacking else "installed: " + ", ".join(f"{p} {installed(p)}" for p in packages)
    core = ("mapsto", "torch", "lightning", "onnxruntime", "onnx", "scikit-learn", "pydantic")
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
