"""How a recipe's package is served and watched: the entry ``serve``, which `mapsto serve` and `mapsto monitor init` read where an option is
not typed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml

from mapsto.data.privacy.settings import Privacy
from mapsto.errors import SpecError

__all__ = ["Scale", "Serving", "Thresholds", "serving_of"]


class Thresholds(pydantic.BaseModel):
    """Beyond which a service alarms."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    errors: float = pydantic.Field(
        default=1.0, ge=0, le=100, description="% of requests that fail by the service's fault"
    )
    p99: float = pydantic.Field(
        default=0.5, ge=0, description="seconds that 99 of 100 requests for inference stay below"
    )
    queue_wait: float = pydantic.Field(
        default=0.25, ge=0, description="seconds in the queue that 99 of 100 batches stay below"
    )
    refused: float = pydantic.Field(
        default=1.0, ge=0, le=100, description="% of requests refused because the model is busy"
    )
    drift: float = pydantic.Field(default=0.001, ge=0, le=1, description="corrected p-value of inputs being as before")
    accuracy_drop: float = pydantic.Field(
        default=10.0,
        ge=0,
        le=100,
        description="points by which late answers are right less often, where that is no chance",
    )
    learner_lag: float = pydantic.Field(
        default=600.0, ge=0, description="seconds that the first of 20 labels or more waits to be learnt"
    )
    key_days: float = pydantic.Field(default=7.0, ge=0, description="days before a key ends")


class TracesTo(pydantic.BaseModel):
    """Where traces are sent, and how many."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    endpoint: str = pydantic.Field(
        pattern=r"^https?://.", description="a collector of OTLP over HTTP, as http://127.0.0.1:4318"
    )
    ratio: float = pydantic.Field(1.0, ge=0, le=1, description="the share of traces that are kept, 0 to 1")


class Scale(pydantic.BaseModel):
    """How many replicas answer under Ray Serve, from which its own settings are made."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    min_replicas: int = pydantic.Field(default=1, ge=1, le=1000, description="replicas that are always there")
    max_replicas: int = pydantic.Field(default=2, ge=1, le=1000, description="replicas at most")
    target_requests: float = pydantic.Field(
        default=8.0, gt=0, description="requests in progress that a replica is to have: with more others are started"
    )
    max_requests: int = pydantic.Field(
        default=100, ge=1, le=100_000, description="requests that a replica is given at once; others wait at the proxy"
    )
    look_back: float = pydantic.Field(
        default=15.0, gt=10, description="seconds over which requests in progress are averaged, above 10"
    )
    upscale_delay: float = pydantic.Field(
        default=5.0, ge=0, description="seconds of more load before a replica is started"
    )
    downscale_delay: float = pydantic.Field(default=60.0, ge=0, description="seconds of less load before one is ended")
    cpus: float = pydantic.Field(default=1.0, gt=0, description="processor cores that Ray reserves for a replica")

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> Scale:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas ({self.min_replicas}) is above max_replicas ({self.max_replicas})")
        return self


class Serving(pydantic.BaseModel):
    """The options of ``mapsto serve`` and of its alarms that a recipe may give."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)

    host: str = pydantic.Field("127.0.0.1", min_length=1, description="an address")
    port: int = pydantic.Field(8080, ge=0, le=65535, description="0 to 65535; 0: any that is free")
    grpc_port: int | None = pydantic.Field(
        None, ge=0, le=65535, description="the port of gRPC, 0 to 65535; 0: any that is free; null: none"
    )
    tls_cert: str = pydantic.Field(
        "", description="a certificate in PEM: HTTP and gRPC are spoken over TLS; empty: not"
    )
    tls_key: str = pydantic.Field("", description="its private key in PEM")
    tls_client_ca: str = pydantic.Field(
        "", description="certificates in PEM that sign those of clients; empty: they need none"
    )
    workers: int = pydantic.Field(1, ge=1, le=64, description="processes that answer, 1 to 64")
    learn: str = pydantic.Field(
        "online.ridge", pattern=r"^(none|online\.\w+)$", description="an online learner with a linear head, or none"
    )
    promote: bool = pydantic.Field(True, description="true or false")
    every: float = pydantic.Field(5.0, gt=0, description="seconds between two learnt versions at most")
    durability: Literal["process", "power"] = pydantic.Field("process", description="process or power")
    most_wait: float = pydantic.Field(1.0, gt=0, description="seconds that a request may be expected to wait")
    deadline: float = pydantic.Field(30.0, gt=0, description="seconds after which nothing is done for a request")
    window: float = pydantic.Field(0.0, ge=0, description="seconds for which it still answers after SIGTERM")
    trusted_keys: tuple[str, ...] = pydantic.Field(
        (), strict=False, description="files of public keys (PEM) by which packages must be signed"
    )
    unsigned: Literal["", "warn", "refuse"] = pydantic.Field(
        "", description="warn or refuse: what becomes of packages that are not signed; refused where a key is trusted"
    )
    privacy: Privacy | None = pydantic.Field(
        None,
        description="{entities, patterns, keep_days, …}: what is masked before it is stored, and how long it is kept",
    )
    tracing: TracesTo | None = pydantic.Field(
        None, description="{endpoint, ratio}, where traces are sent; null: there are none"
    )
    alerts: Thresholds = pydantic.Field(
        default_factory=Thresholds, description="{errors, p99, …}, beyond which it is to alarm"
    )
    scale: Scale = pydantic.Field(
        default_factory=Scale, description="{min_replicas, max_replicas, …}, of replicas under Ray Serve"
    )


def serving_of(run: Path) -> Serving:
    """What the recipe in the folder of a run says of serving it; the defaults where there is no recipe, or no such entry in it.

    Raises `SpecError` where the entry cannot be read.
    """
    file = run / "recipe.yaml"
    if not file.is_file():
        return Serving.model_validate({})
    try:
        tree: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        return Serving.model_validate((tree.get("serve") if isinstance(tree, dict) else None) or {})
    except (yaml.YAMLError, pydantic.ValidationError, UnicodeDecodeError, TypeError) as error:
        reason = error.errors()[0] if isinstance(error, pydantic.ValidationError) else None
        what = f"serve: {'.'.join(map(str, reason['loc']))}: {reason['msg']}" if reason else "it cannot be read"
        raise SpecError(what, where=str(file), hint="mend it, or run the recipe again") from error
