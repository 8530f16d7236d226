"""Export of a model for hosts that have mapsto: what no graph of ONNX holds, as river's trees, and any other online learner.

``package/model/`` holds the model as it is, without pickle, and ``package/manifest.json`` its hashes, its signature and a parity report.
`mapsto predict` answers raw rows with it, the command of streams a stream where its `--from` names it. Where mapsto is missing,
`mapsto-predict` says so; for such a device `export.onnx` packages what it can.
"""

from __future__ import annotations

from pydantic import Field

from mapsto import discovery
from mapsto.context import Context
from mapsto.kinds import Model, Package, Stream
from mapsto.mapping import Mapping, StreamSource
from mapsto.nn.export.package import Exported

__all__ = ["Mapsto"]


class Mapsto(Exported, Mapping[Model, Package]):
    """Write what a model has learnt as a package that mapsto itself answers with.

    Raises `DomainError` where it has learnt nothing yet, or takes columns that a package's rows cannot hold.
    """

    stream: StreamSource | None = Field(
        default=None,
        description="Events for the parity report; by default the samples of `data`, or made-up ones.",
    )

    def apply(self, value: Model, ctx: Context) -> Package:
        from mapsto.nn.online.hosted import hosted_model

        stream = None if self.stream is None else ctx.resolve(self.stream, Stream)
        if stream is None and self.data is not None:
            stream = discovery.find("streams", "replay")(data=self.data)
        return hosted_model(value, stream, ctx, samples=self.samples, where=self.name)
