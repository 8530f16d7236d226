"""Export for several runtimes, time each on this machine, and keep the package of the fastest that answers as the network does.

``argmin_r t(r)`` over the runtimes r whose parity holds, with t the median time of one sample on one thread; candidates take turns
within each round, so whatever else runs slows all alike. The manifest lists every candidate with its size, its parity and, where it
was left out, why; the times stand beside it in ``measured.json`` and are no part of the package's digest. The choice is made once:
the store keeps it, and ``--force`` makes it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError, MissingExtra, SpecError, nearest
from mapsto.kinds import Network, Package, Table
from mapsto.mapping import Mapping, accepts
from mapsto.nn.export.package import Exported, rewritten

if TYPE_CHECKING:
    from mapsto.nn.profile.timing import Timing

__all__ = ["Best"]


class Best(Exported, Mapping[Network, Package]):
    """The package of the fastest runtime.

    Raises `SpecError` for an unknown exporter, `MissingExtra` where one that was asked for is not installed, and `DomainError` where none
    can run the network, or none agrees with it.
    """

    version: ClassVar[int] = 3

    exporters: tuple[str, ...] = ()
    """Names of this family, such as onnx and openvino; by default all whose runtime is installed."""
    top1_agreement: float = Field(default=0.99, ge=0, le=1)
    """Least share of samples on which the package's class is the network's, 0 to 1; for networks that give classes."""
    relative_difference: float = Field(default=0.1, gt=0)
    """Greatest difference of an output, as a share of the outputs' standard deviation; for networks that give no classes."""
    rounds: int = Field(default=7, ge=1)
    """How often each candidate gets its turn."""
    seconds: float = Field(default=0.2, gt=0)
    """Length of one turn; at least 10 calls."""

    contract: ClassVar[dict[str, Any]] = {"exporters": ["onnx"]}

    def __post_init__(self) -> None:
        for name in self.exporters:
            if name not in _known():
                raise SpecError(
                    f"exporters has no exporter '{name}'", where="export.best", hint=nearest(name, _known())
                )

    def apply(self, value: Network, ctx: Context) -> Package:
        packages: dict[str, Package] = {}
        candidates: dict[str, dict[str, Any]] = {}
        for name in self.exporters or _known():
            package = self._exported(name, value, ctx, candidates)
            if package is not None:
                packages[name] = package
        timings = self._timed(packages, value)
        agreeing = [name for name in packages if "left_out" not in candidates[name]]
        if not agreeing:
            reasons = "; ".join(f"{name}: {found['left_out']}" for name, found in candidates.items())
            raise DomainError(
                f"no runtime runs this network as it is ({reasons})",
                where=self.name,
                hint="allow a greater difference, or give other exporters",
            )
        best = min(agreeing, key=lambda name: timings[name].p50)
        ctx.log(f"{best} is the fastest: " + ", ".join(f"{name} {timings[name].p50:.3g} ms" for name in packages))
        described = {"chosen": best, "candidates": candidates}
        return rewritten(packages[best], ctx, described, {"latency": _table(timings)})

    def _exported(
        self, name: str, value: Network, ctx: Context, candidates: dict[str, dict[str, Any]]
    ) -> Package | None:
        """The package, described in `candidates`; None where there is none, with the reason there."""
        from mapsto import discovery

        exporter: Any = discovery.find("mappings", f"export.{name}")
        try:
            package: Package = ctx.apply(exporter(data=self.data, samples=self.samples), value)
        except MissingExtra as error:
            if name in self.exporters:
                raise
            candidates[name] = {"left_out": str(error)}
            return None
        except DomainError as error:
            candidates[name] = {"left_out": str(error)}
            ctx.note(f"{name} is left out: {error}")
            return None
        manifest = package.manifest()
        parity = manifest["parity"]
        size = sum(entry["bytes"] for file, entry in manifest["files"].items() if file.partition(".")[0] == "model")
        candidates[name] = {"bytes": size, "parity": parity}
        reason = self._disagreement(parity)
        if reason is not None:
            candidates[name]["left_out"] = reason
            ctx.note(f"{name} is left out: {reason}")
        return package

    def _disagreement(self, parity: dict[str, Any]) -> str | None:
        agreement, difference = parity["top1_agreement"], parity["relative_difference"]
        if agreement is not None:
            if agreement >= self.top1_agreement:
                return None
            return f"its class is the network's on {agreement:.4g} of the samples, at least {self.top1_agreement:g} are wanted"
        if difference is None or difference <= self.relative_difference:
            return None
        return (
            f"its outputs differ by {difference:.3g} of their spread, at most {self.relative_difference:g} are wanted"
        )

    def _timed(self, packages: dict[str, Package], value: Network) -> dict[str, Timing]:
        from mapsto.nn.export.registry import run_package
        from mapsto.nn.network.examples import example_inputs
        from mapsto.nn.profile.timing import interleaved, torch_threads

        inputs = [tensor.numpy() for tensor in example_inputs(value.signature, 1)]
        runs = {name: run_package(package) for name, package in packages.items()}
        with torch_threads(1):
            return interleaved(
                {name: (lambda run=run: run(*inputs)) for name, run in runs.items()},
                rounds=self.rounds,
                seconds=self.seconds,
            )


def _known() -> tuple[str, ...]:
    """Every exporter of networks but this one."""
    from mapsto import discovery

    names = [name for name in discovery.entries("mappings") if name.startswith("export.") and name != "export.best"]
    of_networks = [name for name in names if accepts(discovery.find("mappings", name).takes, Network)]
    return tuple(name.removeprefix("export.") for name in of_networks)


def _table(timings: dict[str, Timing]) -> Table:
    """Name, median, least and most of the rounds' medians, 99th percentile."""
    columns = ("exporter", "p50", "least median", "most median", "p99")
    rows = [(name, t.p50, min(t.medians), max(t.medians), t.p99) for name, t in timings.items()]
    return Table(columns=columns, rows=tuple(rows), units=dict.fromkeys(columns[1:], "ms"), measured=True)
