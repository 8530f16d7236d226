"""Keep the best n of every m weights in a row, such as 2 of 4: a pattern that some accelerators compute in half the time.

``w_i ← w_i · [s(w_i) among the n greatest of its m neighbours along the layer's inputs]`` with ``s = |w|`` (Mishra et al.,
"Accelerating Sparse Deep Neural Networks", 2021) or ``s = |w| · ‖x‖₂`` over samples (Sun et al., "A Simple and Effective Pruning
Approach for Large Language Models", 2024). A CPU gains nothing by it; `evaluate.sparsity` says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError, SpecError
from mapsto.kinds import Network
from mapsto.mapping import Mapping
from mapsto.nn.prune.unstructured import Masking, masked

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NOfM"]


class NOfM(Masking, Mapping[Network, Network]):
    """The network with n of every m weights left, along the inputs of a linear layer or the input channels of a convolution.

    Layers whose inputs are no multiple of m stay dense. Raises `SpecError` unless n is less than m and for `wanda` without data,
    `DataError` for no samples or values that are not finite, and `DomainError` for a network that is quantized, has
    adapters or no layer that the pattern fits.

    >>> from mapsto import networks
    >>> small = NOfM(n=2, m=4)(networks.mlp(inputs=4, widths=(8,), classes=2)(seed=0))
    >>> [(tensor != 0).reshape(-1, 4).sum(1).unique().tolist() for tensor in small.tensors.values() if tensor.ndim == 2]
    [[2], [2]]
    """

    n: int = Field(default=2, ge=1)
    """Weights of every m that stay."""
    m: int = Field(default=4, ge=2)
    """Neighbours that are compared; 2 of 4 is what NVIDIA's GPUs know since Ampere."""

    contract: ClassVar[dict[str, Any]] = {"m": 4, "n": 2}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n >= self.m:
            raise SpecError(f"n = {self.n} of m = {self.m} keeps all", where="prune.n_m", hint="give n less than m")

    def apply(self, value: Network, ctx: Context) -> Network:
        from mapsto.nn.prune.checks import require_prunable

        module = require_prunable(value, where=self.name)
        layers = self.layers(module)
        inputs = {path: layer.get_parameter("weight").shape[1] for path, layer in layers.items()}
        fitting = {path: layer for path, layer in layers.items() if inputs[path] % self.m == 0}
        others = [f"{path} ({size})" for path, size in inputs.items() if path not in fitting]
        if not fitting:
            raise DomainError(
                f"no layer's inputs are a multiple of {self.m}: {', '.join(others[:5])}",
                where=self.name,
                hint="choose an m that divides them",
            )
        if others:
            ctx.log(f"left dense, as {self.m} does not divide their inputs: {', '.join(others[:5])}")
        scores = self.scores(value, module, fitting, ctx)
        return masked(value, module, {path: self._kept(found) for path, found in scores.items()}, where=self.name)

    def _kept(self, scores: Tensor) -> Tensor:
        """Which weights stay, of the weight's shape (outputs, inputs, ...)."""
        import torch

        rows = scores.movedim(1, -1)
        blocks = rows.reshape(-1, self.m)
        best = blocks.argsort(dim=1, descending=True, stable=True)[:, : self.n]
        kept = torch.zeros_like(blocks, dtype=torch.bool).scatter_(1, best, True)
        return kept.reshape(rows.shape).movedim(-1, 1)
