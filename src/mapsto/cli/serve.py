"""``mapsto serve``: packages behind the Open Inference Protocol, which adapt and learn."""

from __future__ import annotations

import json
import math
import os
import secrets
import socket
import sys
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mapsto.recipe.serving import Serving
    from mapsto.service.mounted import Mounted
    from mapsto.service.served_model import ServedModel
    from mapsto.service.tls import TlsSettings
    from mapsto.service.tracing import TracingSettings
from mapsto.cli.app import app, print_note, print_text
from mapsto.cli.package import TrustedKeysOption, UnsignedOption
from mapsto.errors import MissingExtra, SpecError, command, nearest
from mapsto_runtime.shown import short


class _Durability(Enum):
    PROCESS = "process"
    POWER = "power"


class _Log(Enum):
    NOTHING = "nothing"
    REQUESTS = "requests"


@app.command()
def serve(
    context: typer.Context,
    packages: Annotated[
        list[str],
        typer.Argument(
            help="Packages' folders, or the --out folders of runs that made one; NAME=FOLDER gives a model another name than its folder's."
        ),
    ],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8080,
    grpc_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Answer over gRPC too, on this port; 0: any that is free.", show_default="off"
        ),
    ] = None,
    tls_cert: Annotated[
        str,
        typer.Option(metavar="FILE", help="Speak TLS with this certificate, in PEM, and those between it and its CA."),
    ] = "",
    tls_key: Annotated[str, typer.Option(metavar="FILE", help="The certificate's private key, in PEM.")] = "",
    tls_client_ca: Annotated[
        str, typer.Option(metavar="FILE", help="Let in only clients with a certificate of one of these CAs, in PEM.")
    ] = "",
    state: Annotated[
        str | None,
        typer.Option(
            envvar="MAPSTO_STATE",
            show_envvar=False,
            help="Where feedback, versions and keys are kept: a file, or postgresql://USER@HOST/NAME. By default $MAPSTO_STATE, else "
            "service/state.sqlite in the first model's folder.",
        ),
    ] = None,
    durability: Annotated[
        _Durability,
        typer.Option(
            help="Of a file: `process` outlives every kill of a process, `power` a power cut too, at more time an answer."
        ),
    ] = _Durability.PROCESS,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that answer.")] = 1,
    learn: Annotated[
        str, typer.Option(help="The online learner that learns from feedback; none: nothing is learnt.")
    ] = "online.ridge",
    promote: Annotated[
        bool, typer.Option(help="Let a version that proves better on held-back labels answer by itself.")
    ] = True,
    jwks: Annotated[
        str,
        typer.Option(
            metavar="PLACE", help="Accept tokens too, signed with these keys: a JSON Web Key Set, a file or https URL."
        ),
    ] = "",
    audience: Annotated[str, typer.Option(help="The audience (aud) that tokens are for.")] = "",
    issuer: Annotated[str, typer.Option(help="The issuer (iss) that tokens are of.")] = "",
    admin: Annotated[
        bool, typer.Option("--admin", help="Let this run's key promote and roll back versions, and read metrics.")
    ] = False,
    host_name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name that clients reach it by, besides the loopback's and --host; others are refused. Give several; * is any.",
        ),
    ] = None,
    log: Annotated[
        _Log, typer.Option(help="To standard error: `requests` writes a line of JSON for each, without what it held.")
    ] = _Log.NOTHING,
    privacy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A YAML file that says what is masked before it is stored, and for how long it is kept.",
        ),
    ] = None,
    trace: Annotated[
        str, typer.Option(metavar="URL", help="Send OpenTelemetry traces to this collector, by OTLP over HTTP.")
    ] = "",
    trace_ratio: Annotated[
        float, typer.Option(min=0, max=1, help="The share of traces that are kept, of those that begin here.")
    ] = 1.0,
    studio: Annotated[
        bool,
        typer.Option("--studio", help="Show its load, alerts and versions as pages below /studio/, to who has a key."),
    ] = False,
    ray: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Answer with replicas under Ray Serve, as many as the load needs: `local` starts Ray on this machine, an address joins a "
            "cluster. How many, the entry `scale` of a recipe's `serve` says.",
        ),
    ] = "",
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two learnt versions at most.")] = 5.0,
    most_wait: Annotated[
        float, typer.Option(min=0.001, help="Seconds that a request may be expected to wait; beyond it is refused.")
    ] = 1.0,
    deadline: Annotated[
        float, typer.Option(min=0.001, help="Seconds after which nothing is done for a request.")
    ] = 30.0,
    window: Annotated[
        float,
        typer.Option(min=0, help="Seconds for which requests are still taken after SIGTERM, while readiness fails."),
    ] = 0.0,
    trusted_keys: TrustedKeysOption = None,
    unsigned: UnsignedOption = None,
) -> None:
    """Answer over HTTP (and gRPC), adapt to examples, and learn from feedback.

    A key is made for this run and shown once. `curl` lines that work are printed. What is not typed is taken from the entry `serve` of the
    first run's recipe.

    Example: mapsto serve runs/demo
    """
    try:
        import uvloop
    except ImportError as error:
        raise MissingExtra("uvloop", "serve", where="mapsto serve") from error
    from mapsto.data.privacy.field_rules import require_fields
    from mapsto.data.privacy.pseudonyms import Pseudonyms
    from mapsto.data.privacy.settings import Privacy
    from mapsto.recipe.serving import serving_of
    from mapsto.service.access import AccessSettings
    from mapsto.service.keys import ORDINARY, SCOPES, made_for_run
    from mapsto.service.learner import LEARNERS
    from mapsto.service.row_masking import masking_of
    from mapsto.service.server import Ending
    from mapsto.service.service import Limits
    from mapsto.service.state import State, default_state
    from mapsto.service.supervisor import Settings, Supervisor
    from mapsto.service.worker import models_of
    from mapsto_runtime.signed_package import Trust

    del uvloop
    typed = {
        each: getattr(value, "value", value)
        for each, value in context.params.items()
        if (source := context.get_parameter_source(each)) is not None and source.name == "COMMANDLINE"
    }
    asked = serving_of(Path(packages[0].partition("=")[2] or packages[0]))
    if privacy is not None:
        asked = asked.model_copy(update={"privacy": Privacy.of_file(privacy)})
    asked = asked.model_copy(
        update={each: value for each, value in typed.items() if each in type(asked).model_fields and each != "privacy"}
    )
    if asked.learn not in ("none", *LEARNERS):
        raise SpecError(
            f"'{asked.learn}' does not learn here", where="--learn", hint=nearest(asked.learn, ("none", *LEARNERS))
        )
    if studio and ray:
        raise SpecError(
            "the studio is part of a service's own workers, and not of replicas under Ray",
            where="--studio",
            hint=f"leave it out, and look at the service by `{command('mapsto studio --service URL --key KEY')}`",
        )
    access = AccessSettings(
        hosts=tuple(host_name or ()), log=log is _Log.REQUESTS, jwks=jwks, audience=audience, issuer=issuer
    )
    access.tokens()  # is refused now, and not by a worker
    tls, tracing = _tls(asked), _tracing(asked, typed)
    folders = _named(packages)
    first = next(iter(folders.values()))
    place = Path(state) if state and "://" not in state else default_state(first)
    key_file = place.with_name(f"{place.stem}-privacy.key")
    if asked.privacy is not None and asked.privacy.key:
        key_file = Path(asked.privacy.key)
    masking = None if asked.privacy is None else masking_of(asked.privacy, key_file)  # refused now, or not at all
    trust = Trust.of(trusted_keys or (), unsigned or "", beside=(asked.trusted_keys, asked.unsigned))
    rules = {} if asked.privacy is None else asked.privacy.fields
    models = models_of(
        [{"name": name, "folder": str(folder)} for name, folder in folders.items()],
        trust=trust,
        fields=rules,
        pseudonyms=Pseudonyms.of_file(key_file) if rules else None,
    )
    require_fields(rules, {model.name: model.signature.preprocessing.columns for model in models})
    for note in filter(None, (model.verified.note for model in models)):
        print_note(note)
    held = State(state or str(place), durability=asked.durability)
    run, key = made_for_run(SCOPES if admin else ORDINARY)
    listening = _listening(asked.host, asked.port)
    host = asked.host if ":" not in asked.host else f"[{asked.host}]"
    address = f"{'http' if tls is None else 'https'}://{host}:{listening.getsockname()[1]}"
    reserved = None if asked.grpc_port is None else _reserved(asked.host, asked.grpc_port)
    grpc = "" if reserved is None else f"{host}:{reserved.getsockname()[1]}"
    settings = Settings(
        state=state or str(place),
        folder=place.with_name(f"{place.stem}-answers"),  # not among packages, nor among those of another state
        models=folders,
        adapts=any(model.adapts for model in models),
        learning=tuple(model.name for model in models if model.adapts) if asked.learn != "none" else (),
        learner=asked.learn,
        promote=asked.promote,
        every=asked.every,
        durability=asked.durability,
        workers=asked.workers,
        limits=Limits(most_wait=asked.most_wait, deadline=asked.deadline),
        ending=Ending(window=asked.window),
        access=access,
        grpc=grpc,
        trust=trust,
        tls=tls,
        tracing=tracing,
        mounted=(_studio(asked, address),) if studio else (),
        run=run,
        privacy=asked.privacy,
        privacy_key=key_file,
    )

    def started() -> None:
        for line in _welcome(address, run.name, key, models[0], grpc, tls):
            print_text(line)
        if studio:
            print_text(f"studio at {address}/studio/; sign in with the key")
        sys.stdout.flush()

    try:
        if ray:
            from mapsto.service.ray_service import RayService

            port = listening.getsockname()[1]
            listening.close()  # Ray's proxy listens
            RayService(settings, asked.scale, ray=ray, host=asked.host, port=port).run(started, note=print_note)
        else:
            Supervisor(settings, listening, masking=masking).run(started, note=print_note)
    finally:
        held.close()
        listening.close()
        if reserved is not None:
            reserved.close()
    print_note("ended; what was acknowledged is kept")


def _studio(asked: Serving, address: str) -> Mounted:
    from mapsto.service.mounted import Mounted

    settings = {"secret": secrets.token_hex(32), "alerts": asked.alerts.model_dump(), "where": address}
    return Mounted(path="/studio", factory="mapsto.studio.mounted:mounted", settings=settings)


def _named(packages: list[str]) -> dict[str, Path]:
    from mapsto.service.hosts import is_model_name
    from mapsto_runtime.answer_rows import package_folder

    found: dict[str, Path] = {}
    for text in packages:
        name, sign, folder = text.partition("=")
        given = Path(folder if sign else text)
        name = name if sign else given.resolve().name
        if name == "package" and not sign:
            name = given.resolve().parent.name
        if not is_model_name(name):
            raise SpecError(
                f"'{short(name)}' is no name of a model",
                where=text,
                hint="give one of letters, digits, '.', '_' and '-': NAME=FOLDER",
            )
        if name in found:
            raise SpecError(f"two models are called '{name}'", where=text, hint="give one another name: NAME=FOLDER")
        found[name] = package_folder(given)
    return found


def _listening(host: str, port: int) -> socket.socket:
    opened = _bound(host, port, command("mapsto serve FOLDER --port 0"))
    opened.listen(1024)
    return opened


def _reserved(host: str, port: int) -> socket.socket:
    """A socket that holds a port, which each worker listens on by itself, as gRPC does. Raises `SpecError` where it is taken."""
    try:
        import_module("grpc")
        import_module("google.protobuf")
    except ImportError as error:
        raise MissingExtra("grpcio", "grpc", where="--grpc-port") from error
    again = command("mapsto serve FOLDER --grpc-port 0")
    tried = _bound(host, port, again)  # without sharing it: another service on it is seen
    number = tried.getsockname()[1]
    tried.close()
    return _bound(host, number, again, shared=True)


def _bound(host: str, port: int, again: str, *, shared: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        opened.bind((host, port))
    except (socket.gaierror, UnicodeError) as error:
        opened.close()
        raise SpecError(
            f"'{short(host)}' is no address of this machine", where="--host", hint="give 127.0.0.1, or 0.0.0.0 for all"
        ) from error
    except OSError as error:
        opened.close()
        raise SpecError(
            f"{host}:{port} cannot be listened on ({error.strerror})",
            where="mapsto serve",
            hint=f"take another port: {again}",
        ) from error
    return opened


_IMAGE = (
    '{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"content_type": "base64"}, '
    """"data": ["'$(base64 -w0 FILE)'"]}]}"""
)
"""The body of a request for an image file, as a shell makes it."""


def _tls(asked: Serving) -> TlsSettings | None:
    """The files of TLS, checked. Raises `SpecError` where one is missing or wrong."""
    if not (asked.tls_cert or asked.tls_key or asked.tls_client_ca):
        return None
    if not (asked.tls_cert and asked.tls_key):
        raise SpecError(
            "TLS needs a certificate and its private key",
            where="--tls-key" if asked.tls_cert else "--tls-cert",
            hint="give --tls-cert and --tls-key",
        )
    from mapsto.service.tls import Certificates, TlsSettings

    files = (asked.tls_cert, asked.tls_key, asked.tls_client_ca)
    cert, key, client_ca = (str(Path(each).absolute()) if each else "" for each in files)
    settings = TlsSettings(cert=cert, key=key, client_ca=client_ca)
    for each in Certificates(settings).notes():
        print_note(each)
    return settings


def _tracing(asked: Serving, typed: dict[str, Any]) -> TracingSettings | None:
    """Where traces are sent. Raises `SpecError` where that is no address, `MissingExtra` where OpenTelemetry is not there."""
    endpoint = typed.get("trace", asked.tracing.endpoint if asked.tracing else "")
    if not endpoint:
        return None
    from mapsto.service.tracing import TracingSettings

    settings = TracingSettings(
        endpoint=endpoint, ratio=typed.get("trace_ratio", asked.tracing.ratio if asked.tracing else 1.0)
    )
    try:
        import_module("opentelemetry.sdk.trace")
        import_module("opentelemetry.exporter.otlp.proto.http")
    except ImportError as error:
        raise MissingExtra("opentelemetry", "tracing", where="--trace") from error
    return settings


def _welcome(address: str, name: str, key: str, model: ServedModel, grpc: str, tls: TlsSettings | None) -> list[str]:
    """Where it is served, the key of this run, and lines for `curl`."""
    own = f"{address}/v2/models/{model.name}"
    trust = "" if tls is None else f"--cacert {tls.cert} "
    if tls is not None and tls.client_ca:
        trust += "--cert CERTIFICATE --key KEY "
    curl = f"curl {trust}-sH 'Authorization: Bearer {key}' {own}"
    infer, label = _example(model), "LABEL"
    return [
        f"serving {model.name} at {address}, process {os.getpid()}; end with Ctrl-C",
        *([f"gRPC at {grpc}"] if grpc else []),
        f"key '{name}', for this run: {key}",
        curl,
        f"{curl}/infer -d '{infer}'",
        f"""{curl}/feedback -d '{{"label": "{label}", {infer[1:]}'""",
    ]


def _example(model: ServedModel) -> str:
    """The body of a request that works."""
    examples = sorted((model.folder / "examples").glob("*")) if (model.folder / "examples").is_dir() else []
    if examples and model.signature.preprocessing.kind == "image":
        return _IMAGE.replace("FILE", str(examples[0].resolve()))
    if model.signature.preprocessing.kind == "text":
        texts = [
            {"name": each["name"], "datatype": "BYTES", "shape": [1], "data": ["TEXT"]} for each in model.raw_inputs()
        ]
        return json.dumps({"inputs": texts})
    columns = model.signature.preprocessing.columns
    if columns:
        inputs = [
            {"name": each.name, "datatype": "BYTES" if each.categories else "FP64", "shape": [1]}
            | {"data": [each.categories[0] if each.categories else each.mean]}
            for each in columns
        ]
        return json.dumps({"inputs": inputs})
    from mapsto.service.inference_protocol import datatype_of

    spec, shape = model.signature.inputs[0], list(model.signature.input_shape(1))
    zeros = [0] * math.prod(shape)
    return json.dumps(
        {"inputs": [{"name": spec.name, "datatype": datatype_of(spec.dtype), "shape": shape, "data": zeros}]}
    )
