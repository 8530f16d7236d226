"""``mapsto bench``: a benchmark of the checkout, by name."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mapsto.cli.app import JsonOption, app, print_json, print_text
from mapsto.cli.run import seeds_of
from mapsto.errors import DataError, SpecError, nearest

__all__ = ["benchmarks", "run_benchmark"]


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="A benchmark; without one they are listed.")] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="Small settings: shows that it works; writes no result.")
    ] = False,
    only: Annotated[str, typer.Option(help="Only rows whose name holds this, where a benchmark has rows.")] = "",
    seeds: Annotated[str, typer.Option(help="Only these seeds, such as 0,1,2, where a benchmark takes several.")] = "",
    device: Annotated[str, typer.Option(help="cpu or cuda, where a benchmark can run on either.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Run a benchmark of a checkout and write its result file.

    Example: mapsto bench engine --quick
    """
    known = benchmarks()
    if not name:
        print_json(sorted(known)) if as_json else print_text("\n".join(sorted(known)))
        return
    result = run_benchmark(name, quick=quick, only=only, seeds=seeds, device=device)
    if as_json:
        print_json(result)


def benchmarks() -> dict[str, Path]:
    """The benchmarks of the checkout that the current folder lies in. Raises `DataError` outside one."""
    for folder in (Path.cwd(), *Path.cwd().parents, Path(__file__).resolve().parents[3]):
        if (folder / "benchmarks" / "results").is_dir():
            return {
                path.stem: path
                for path in sorted((folder / "benchmarks").glob("*/*.py"))
                if not path.name.startswith("_")
            }
    raise DataError("benchmarks belong to a checkout", where=str(Path.cwd()), hint="run this inside a clone of mapsto")


def run_benchmark(name: str, *, quick: bool, only: str = "", seeds: str = "", device: str = "cpu") -> dict[str, Any]:
    """Run ``benchmarks/<area>/<name>.py``'s ``main(quick)``, with the other options where it knows them, and give its result."""
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
    asked = {
        **({"only": only} if only else {}),
        **({"seeds": seeds_of(seeds)} if seeds else {}),
        **({"device": device} if device != "cpu" else {}),
    }
    lacks = {
        "only": "has no rows to choose from",
        "seeds": "has no seeds to choose from",
        "device": "runs on the CPU alone",
    }
    for option in asked:
        if option not in known_to_it:
            raise SpecError(f"benchmark '{name}' {lacks[option]}", where=f"--{option}", hint="leave it out")
    if device != "cpu":
        from mapsto.context import Numerics, make_fabric

        make_fabric(Numerics(device=device))  # which says where there is no such device
    return module.main(quick, **asked)
