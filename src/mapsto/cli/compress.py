"""``mapsto compress``: the best small network within limits, as a recipe that is run."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from mapsto.cli.app import JsonOption, StoreOption, TrustOption, app, print_note
from mapsto.cli.run import run, writable_at_the_end
from mapsto.cli.search import searched
from mapsto.errors import MapstoError, SpecError, command


@app.command()
def compress(
    model: Annotated[
        str,
        typer.Argument(help="The --out folder of a run, a recipe, or package.module:factory=weights.pt."),
    ],
    examples: Annotated[str, typer.Argument(metavar="[DATA]", help="The same as --data.", show_default=False)] = "",
    data: Annotated[
        str,
        typer.Option(
            help="A folder of class folders, an .npz archive, a table (with --target), or a data set as in a recipe."
        ),
    ] = "",
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="latency=0.5ms, bytes=200kB, macs=10M or parameters=50k; given several times, all must hold."
        ),
    ] = None,
    target: Annotated[str | None, typer.Option(help="The column of a table that is predicted.")] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="The column of a table that holds texts; twice for pairs of texts.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="Data that are only reported on, as --data.")] = None,
    shares: Annotated[
        str, typer.Option(help="Shares of the multiply-accumulates to try, besides the whole network.")
    ] = "0.5,0.25,0.125",
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Epochs of distillation for each share, of 100 steps for a learner; each is tried without distillation too. "
            "[default: 10; of an encoder of texts 3]",
        ),
    ] = None,
    step: Annotated[
        str | None, typer.Option(help="The run's step to take; by default its last network that is not quantized.")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, help="Search so many recipes, the shares of --shares among them, in the place of these alone."
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="With --trials, or alone: no trial begins after so many minutes.")
    ] = None,
    runtime: Annotated[
        str,
        typer.Option(
            help="What latency is measured in and the package is for: onnxruntime, openvino, litert, executorch."
        ),
    ] = "onnxruntime",
    mean: Annotated[
        str | None, typer.Option(help="A checkpoint's mean by channel, after division by 255: 0.485,0.456,0.406.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="A checkpoint's standard deviation by channel, likewise.")] = None,
    shape: Annotated[str | None, typer.Option("--input", help="Shape of one input of a checkpoint: 1,49,10.")] = None,
    arguments: Annotated[str | None, typer.Option(help="What its factory is called with: {num_classes: 10}.")] = None,
    output: Annotated[
        str | None,
        typer.Option(help="Which output of a checkpoint is taken, where it gives several: a name or a place."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for recipe, report and package. [default: runs/compress]")
    ] = None,
    store: StoreOption = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch. [default: all cores]")] = None,
    trust: TrustOption = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Write the recipe and say what would run; run nothing of it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Find the most accurate small network within limits: prune, refit, distil and quantize at several sizes, export the best.

    Each size is tried with and without distillation; with --trials a search chooses what is tried. A network of dense outputs
    is kept near to its own answers, without labels.

    Example: mapsto compress runs/demo digits --limit bytes=200kB

    Example: mapsto compress runs/demo digits --limit bytes=200kB --trials 8

    Example: mapsto compress runs/adapted intents.csv --text text --target intent --limit bytes=13M

    Example: mapsto compress package.module:factory=weights.pt photos --limit latency=0.5ms --trust package
    """
    from mapsto import kinds
    from mapsto.search import compress

    if target is not None and "=" in target:
        raise SpecError(
            f"'{target}' is a limit, and --target is the column of a table that is predicted",
            where="--target",
            hint=f"write --limit {target}",
        )
    if bool(data) == bool(examples):
        what = "twice" if data else "no data are"
        raise SpecError(
            f"the data are given {what}" if data else f"{what} given",
            where="mapsto compress",
            hint="give a folder with a folder of images for each class, as in "
            f"`{command('mapsto compress {model} FOLDER --limit bytes=200kB', model=model)}`",
        )
    if not limit:
        raise SpecError(
            "no limit is given", where="mapsto compress", hint="as in --limit latency=0.5ms or --limit bytes=200kB"
        )
    limits = tuple(compress.parse_limit(each) for each in limit)
    tried = _shares(shares)
    folder = out or Path("runs") / "compress"
    node = compress.data_node(data or examples, target, columns=tuple(text or ()))
    fields = compress.checkpoint_fields(mean=mean, std=std, input=shape, arguments=arguments, output=output)
    given = compress.model_nodes(model, step, data=node, fields=fields)
    if compress.knows(given, node):
        print_note(
            f"{model} has learnt from these very data, so that its own accuracy and that of what stays near to it are too good: "
            "give other examples, or others still with --test"
        )
    with kinds.trusting(*(trust or [])):
        signature = compress.signature_of(given)
    if test is not None:
        judged = compress.data_node(test, target, columns=tuple(text or ()))
    else:
        judged = compress.node_of_test_split(data or examples)
    asked: dict[str, Any] = {
        "model": given,
        "data": node,
        "test": judged,
        "limits": limits,
        "shares": tried,
        "epochs": epochs,
        "seed": seed,
        "runtime": runtime,
        "signature": signature,
    }
    if trials is not None or minutes:
        recipe_text = _searched(
            asked,
            folder,
            trials=trials,
            minutes=minutes,
            store=store,
            threads=threads,
            trust=trust,
            plan=plan,
            as_json=as_json,
        )
        if recipe_text is None:
            return
    else:
        recipe_text = compress.compression_recipe(**asked)
    with _recipe_in(folder, recipe_text) as recipe:
        run(
            str(recipe),
            settings=None,
            out=folder,
            store=store,
            device="cpu",
            precision="32-true",
            threads=threads,
            processes=1,
            strategy="auto",
            seed=None,
            seeds=None,
            quick=False,
            plan=plan,
            force=None,
            trust=trust,
            as_json=as_json,
        )
    if not plan:
        for said in compress.said_of_original(json.loads((folder / "report.json").read_text(encoding="utf-8")), node):
            print_note(said)


def _searched(
    asked: dict[str, Any],
    folder: Path,
    *,
    trials: int | None,
    minutes: float | None,
    store: str | None,
    threads: int | None,
    trust: list[str] | None,
    plan: bool,
    as_json: bool,
) -> str | None:
    """The recipe of the best trial, or of the one that comes nearest to the limits; None where it was only planned."""
    from mapsto import kinds
    from mapsto.search.compress_space import compression_space

    space = compression_space(**asked)
    with kinds.trusting(*(trust or [])), writable_at_the_end(folder):
        found = searched(
            space.text,
            folder / "search",
            first=space.first,
            trials=trials,
            minutes=minutes,
            store=store,
            threads=threads,
            trust=trust,
            seed=asked["seed"],
            plan=plan,
            as_json=as_json,
        )
    return None if found is None else space.recipe_of(found.recipe)


@contextmanager
def _recipe_in(folder: Path, text: str) -> Generator[Path]:
    """The recipe's file; where the block fails, the folder is as it was before."""
    recipe = folder / "recipe.yaml"
    with writable_at_the_end(folder):
        before = recipe.read_bytes() if recipe.is_file() else None
        recipe.write_text(text, encoding="utf-8")
        try:
            yield recipe
        except (MapstoError, KeyboardInterrupt):
            if before is None:
                recipe.unlink(missing_ok=True)
            else:
                recipe.write_bytes(before)
            raise


def _shares(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = ()
    if not found or len(set(found)) != len(found) or not all(_LEAST_SHARE <= share <= 1 for share in found):
        raise SpecError(
            f"'{text}' is not a list of different shares of {_LEAST_SHARE:g} to 1", where="--shares", hint="0.5,0.25"
        )
    return found


_LEAST_SHARE = 0.001
