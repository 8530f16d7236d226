"""Leave out whole blocks of a transformer or residual network, those first that change least: fewer layers, not thinner ones.

``I_l = 1 − mean cos(x_l, x_{l+1})`` of what a block is given and what it gives on samples (Men et al., "ShortGPT: Layers in Large
Language Models are More Redundant Than You Expect", 2024), or the loss with that block alone left out. Train or distil afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError, SpecError
from mapsto.kinds import Network
from mapsto.mapping import DataSource, Mapping

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Blocks"]


def _residual() -> Network:
    """For the contract suite: a network that has blocks."""
    from mapsto import discovery

    return discovery.find("mappings", "networks.resnet_cifar")(depth=20, width=4, channels=1, classes=10)(seed=0)


class Blocks(Mapping[Network, Network]):
    """The network without the blocks of least influence; a block is a part of a list or sequence whose output has its input's shape.

    Raises `SpecError` unless one of `share` and `number` is given, `DataError` for no samples or values that are not finite, and
    `DomainError` for a network that is quantized or has adapters, has no blocks or too few, or that the data does not fit.

    >>> from mapsto import datasets, networks
    >>> digits = datasets.subset(data=datasets.digits(size=16), per_class=4)
    >>> net = networks.resnet_cifar(depth=20, width=4, channels=1, classes=10)(seed=0)
    >>> for name in ("layer2.1.bn2.weight", "layer2.1.bn2.bias"):  # a block that adds nothing
    ...     _ = net.tensors[name].zero_()
    >>> Blocks(number=1, data=digits)(net).edits[0].blocks
    ('layer2.1',)
    """

    share: float | None = Field(default=None, gt=0, lt=1)
    """Share of the blocks that go, 0 to 1, rounded down; give this or `number`."""
    number: int | None = Field(default=None, ge=1)
    """How many blocks go."""
    data: DataSource
    """Samples that influence is measured on; with `measure: loss` their labels too."""
    measure: Literal["influence", "loss"] = "influence"
    """What ranks the blocks: how much they turn what they are given, or the classifier's loss without them."""
    samples: int = Field(default=128, ge=1)
    """Calibration samples."""
    skip: tuple[str, ...] = ()
    """Paths of blocks that stay."""

    contract: ClassVar[dict[str, Any]] = {
        "number": 2,
        "data": {"subset": {"data": {"digits": {"size": 16}}, "per_class": 4}},
    }
    contract_input: ClassVar[Any] = staticmethod(_residual)

    def __post_init__(self) -> None:
        if (self.share is None) == (self.number is None):
            raise SpecError("give either share or number", where="prune.blocks", hint="as in number=2")

    def apply(self, value: Network, ctx: Context) -> Network:
        from mapsto.nn.edits.skipped_blocks import SkippedBlocks
        from mapsto.nn.network.examples import example_batch
        from mapsto.nn.prune.checks import require_prunable
        from mapsto.nn.prune.layer_drop import find_blocks
        from mapsto.nn.quantize.post_training import require_paths

        module = require_prunable(value, where=self.name)
        require_paths(module, self.skip, where=self.name)
        known = find_blocks(module, example_batch(value))
        if not known:
            parts = sorted({type(part).__name__ for part in module.children()})
            raise DomainError(
                f"the network has no blocks that could be left out; its parts are {', '.join(parts) or 'none'}",
                where=self.name,
                hint="a block is in a ModuleList or Sequential, has parts of its own, and gives what has its input's shape",
            )
        blocks = [path for path in known if path not in self.skip]
        count = self._count(len(known), min(len(blocks), len(known) - 1))
        worth = self._worth(value, module, blocks, ctx)
        gone = sorted(blocks, key=lambda path: worth[path])[:count]
        ctx.log(f"{len(known) - count} of {len(known)} blocks stay, without {', '.join(gone)}")
        if self.share is not None and count / len(known) < 0.8 * self.share:
            ctx.note(
                f"asked for {self.share:.0%} of the blocks to go, {count} of {len(known)} do: only whole blocks go"
            )
        edit = SkippedBlocks(blocks=tuple(path for path in known if path in gone))
        return value.with_module(edit.apply(module), edit)

    def _count(self, blocks: int, most: int) -> int:
        """How many go. Raises `DomainError` for none, or more than can."""
        count = self.number if self.number is not None else int((self.share or 0) * blocks + 1e-9)
        if count > most:
            raise DomainError(
                f"{count} of {blocks} blocks cannot go: at most {most} can",
                where=self.name,
                hint="drop fewer, or skip fewer",
            )
        if count == 0:
            raise DomainError(
                f"share {self.share} of {blocks} blocks is less than one",
                where=self.name,
                hint=f"give a share of {1 / blocks:.3g} or more, or number=1",
            )
        return count

    def _worth(self, value: Network, module: nn.Module, blocks: list[str], ctx: Context) -> dict[str, float]:
        from mapsto.nn.prune.layer_drop import influences, losses_without
        from mapsto.nn.train.calibration_batches import inputs_of, labelled

        if self.measure == "loss":
            found = labelled(value, self.data, self.samples, ctx, where=self.name)
            return losses_without(module, blocks, ctx.track(found, what="losses"))
        batches = inputs_of(value, self.data, self.samples, ctx, where=self.name)
        return influences(module, blocks, ctx.track(batches, what="blocks"))
