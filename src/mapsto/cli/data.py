"""``mapsto data``: what a service keeps of somebody, and that it is erased."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from mapsto.cli.app import JsonOption, app, print_json, print_note, print_text
from mapsto.cli.service_state import PackageArgument, StateOption, opened_state

data_app = typer.Typer(help="Erase what a service keeps of somebody.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")


class _As(Enum):
    TENANT = "tenant"
    KEY = "key"
    EVENT = "event"
    LABEL = "label"


@data_app.callback()
def _group() -> None:
    """A group, of however many commands."""


@data_app.command("forget")
def data_forget(
    subject: Annotated[
        str,
        typer.Argument(
            help="A tenant, the id of a key, or an event: an idempotency key, or what it begins with up to a /; a request id."
        ),
    ],
    package: PackageArgument = None,
    state: StateOption = None,
    as_: Annotated[
        list[_As] | None,
        typer.Option(
            "--as",
            help="What the subject is. Give several. By default all but a label, which is a class that others share.",
        ),
    ] = None,
    retrain: Annotated[
        bool,
        typer.Option(
            "--retrain",
            help="Delete the versions that learnt from it and let the learner begin anew; without, they are marked and go on.",
        ),
    ] = False,
    key: Annotated[
        Path | None,
        typer.Option(help="The file of the key of pseudonyms, by default STATE-privacy.key beside the state."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what there is, and change nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Erase what a service keeps of somebody, while it runs or not; killed anywhere, the same command goes on.

    Example: mapsto data forget customer-17 runs/demo --dry-run
    """
    with opened_state(package, state, where="mapsto data forget") as held:
        from mapsto.data.privacy.pseudonyms import Pseudonyms
        from mapsto.service.erased_answers import answers_folder
        from mapsto.service.erasure import AS, As, Erasure

        place = Path(held.url)
        secret = key or place.with_name(f"{place.stem}-privacy.key")
        pseudonyms = Pseudonyms.of_file(secret) if secret.is_file() or key is not None else None
        given = {each.value for each in as_ or ()}
        chosen: list[As] = [name for name in AS if str(name) in given]
        erasure = Erasure(held, answers_folder(held.url), pseudonyms=pseudonyms, as_=chosen or AS[:-1])
        found = erasure.look(subject) if dry_run else erasure.forget(subject, retrain=retrain)
    if as_json:
        print_json({"dry_run": dry_run, **asdict(found)})
        return
    for model in found.retrained if not found.anything else []:
        print_text(f"the learner of '{model}' begins anew")
    if not found.anything:
        print_text("nothing is kept of it" + (f"; it was erased before ({found.before})" if found.before else ""))
        return
    own = f"{found.labels} labels, {len(found.versions)} versions of its own, {found.jobs} jobs, {found.keys} keys"
    said = f"{own}, {found.answers} answers"
    print_text(f"there are {said}" if dry_run else f"{found.tombstone}: erased {said}")
    for each in found.learnt:
        what = (
            "learnt from it"
            if dry_run
            else "learnt from it, and is deleted"
            if retrain
            else "learnt from it, and is marked"
        )
        print_text(f"  {each} {what}")
    for model in found.active:
        print_note(
            f"'{model}' is answered by the package itself now"
            if retrain and not dry_run
            else f"'{model}' answers with a version that learnt from it; --retrain takes that away"
        )
