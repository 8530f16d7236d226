"""``mapsto monitor``: what Prometheus, Alertmanager and Grafana need to watch a service."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mapsto.cli.app import app, print_note, print_text
from mapsto.cli.service_state import PackageArgument, StateOption, opened_state
from mapsto.errors import SpecError, command

monitor_app = typer.Typer(help="Watch a service.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(monitor_app, name="monitor")


@monitor_app.command("init")
def monitor_init(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The folder to write to.")],
    package: PackageArgument = None,
    state: StateOption = None,
    url: Annotated[str, typer.Option(help="The address of the service.")] = "http://127.0.0.1:8080",
    webhook: Annotated[str, typer.Option(help="The address that alarms are sent to, as JSON by POST.")] = "",
    ca: Annotated[str, typer.Option(metavar="FILE", help="Of whom the service has its certificate, in PEM.")] = "",
    client_cert: Annotated[
        str, typer.Option(metavar="FILE", help="The certificate that the service asks of its clients, in PEM.")
    ] = "",
    client_key: Annotated[str, typer.Option(metavar="FILE", help="The private key of --client-cert.")] = "",
    alertmanager: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where Alertmanager will listen.")
    ] = "127.0.0.1:9093",
    errors: Annotated[float, typer.Option(min=0, max=100, help="Alarm beyond so many % of failed requests.")] = 1.0,
    p99: Annotated[
        float, typer.Option(min=0, help="Alarm where 1 in 100 requests for inference takes longer, in seconds.")
    ] = 0.5,
    queue_wait: Annotated[
        float, typer.Option(min=0, help="Alarm where requests wait longer for the model, in seconds.")
    ] = 0.25,
    refused: Annotated[
        float,
        typer.Option(min=0, max=100, help="Alarm beyond so many % of requests refused because the model is busy."),
    ] = 1.0,
    drift: Annotated[
        float, typer.Option(min=0, max=1, help="Alarm below this p-value of inputs being as before, corrected.")
    ] = 0.001,
    accuracy_drop: Annotated[
        float,
        typer.Option(min=0, max=100, help="Alarm where answers are right less often by so many points than before."),
    ] = 10.0,
    learner_lag: Annotated[
        float, typer.Option(min=0, help="Alarm where labels wait longer to be learnt, in seconds.")
    ] = 600.0,
    interval: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks.")] = 15.0,
    window: Annotated[float, typer.Option(min=0.2, help="Seconds over which rates are taken.")] = 300.0,
    hold: Annotated[float, typer.Option(min=0, help="Seconds for which it has to last before it is an alarm.")] = 120.0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there; a key that is there stays.")] = False,
) -> None:
    """Write the configurations of Prometheus and Alertmanager, the rules of alarms, and a dashboard for Grafana.

    With a package, or --state, a key with the scope `metrics` is made and put beside them. Limits that are not typed are taken from
    `serve: {alerts: …}` in the recipe of the run.

    Example: mapsto monitor init monitoring runs/demo --webhook http://127.0.0.1:9000/alarms
    """
    from mapsto.recipe.serving import Thresholds, serving_of
    from mapsto.service.monitoring import KEY, Monitor, files

    name, _, port = alertmanager.rpartition(":")
    if not name or not port.isdigit() or not 0 < int(port) < 65536:
        raise SpecError(
            f"'{alertmanager}' is no address", where="--alertmanager", hint="give a host and a port, as 127.0.0.1:9093"
        )
    if window < 4 * interval:
        raise SpecError(
            f"{window:g} s hold fewer than four looks of {interval:g} s",
            where="--window",
            hint="make it at least four times --interval",
        )
    typed = {
        name: value
        for name, value in context.params.items()
        if name in Thresholds.model_fields
        and (source := context.get_parameter_source(name)) is not None
        and source.name == "COMMANDLINE"
    }
    del errors, p99, queue_wait, refused, drift, accuracy_drop, learner_lag  # those that were typed are in `typed`
    limits = Thresholds() if package is None else serving_of(Path(package)).alerts
    limits = limits.model_copy(update=typed)
    contents = files(
        Monitor(
            url=url,
            alertmanager=alertmanager,
            webhook=webhook,
            ca=ca,
            client_cert=client_cert,
            client_key=client_key,
            interval=interval,
            window=window,
            hold=hold,
            thresholds=limits,
        )
    )
    there = [name for name in (*contents, KEY) if (folder / name).exists()]
    if there and not force:
        raise SpecError(f"holds {there[0]} already", where=str(folder), hint="give another folder, or --force")
    has_key = (folder / KEY).is_file() and (folder / KEY).stat().st_size > 0
    key = "" if has_key or (package is None and state is None) else _new_key(package, state)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    if not has_key:
        _write_secret(folder / KEY, key)
    print_text(f"{folder / 'README.md'} says how to start")
    if not has_key and not key:
        say = command("mapsto keys make RUN --scope metrics")
        print_note(f"{folder / KEY} is empty: put a key into it that may read metrics, made by {say}")


def _new_key(package: str | None, state: str | None) -> str:
    with opened_state(package, state, where="mapsto monitor init", new=True) as held:
        import secrets

        from mapsto.service.keys import made

        return made(held, name=f"prometheus-{secrets.token_hex(4)}", scopes=["metrics"])[1]


def _write_secret(path: Path, text: str) -> None:
    """A file that only its owner can read."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
