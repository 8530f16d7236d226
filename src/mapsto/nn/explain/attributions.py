"""How much each part of a sample speaks for a class, by a network's gradients (through captum) or by hiding parts.

Integrated gradients: ``a_i = (x_i − x'_i) ∫₀¹ ∂s(x' + t (x − x')) / ∂x_i dt`` with x' the sample with everything hidden; they add up to
s(x) − s(x') (Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", 2017). Saliency: ``|∂s / ∂x_i|`` (Simonyan, Vedaldi and
Zisserman, 2014). SmoothGrad: saliency without the bars, the mean of the gradient over noisy copies, times the input (Smilkov et al., 2017).
s are the log-odds of the class (`mapsto_runtime.occlusion.log_odds`). Of texts the gradients are those at the tokens' embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn

from mapsto.errors import DomainError, MissingExtra
from mapsto.kinds import Network
from mapsto.nn.edits.quantizers import has_quantized_part
from mapsto_runtime.occlusion import log_odds, occlusion
from mapsto_runtime.parts import Cells, Columns, Parts, special_ids
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["METHODS", "Attributor", "Method"]

Method: TypeAlias = Literal["occlusion", "integrated_gradients", "gradient_x_input", "saliency", "smooth_grad"]
METHODS: tuple[Method, ...] = ("occlusion", "integrated_gradients", "gradient_x_input", "saliency", "smooth_grad")
_NOISE = 0.1
"""Standard deviation of SmoothGrad's noise, as a share of the range of the sample's values."""
_NOISY = 16
"""Noisy copies."""
_BATCH = 16


class Attributor:
    """Scores the parts of samples of one network.

    Parameters
    ----------
    network
        What is explained.
    method
        How.
    steps
        Points at which integrated gradients are taken.
    device
        Where it runs.

    Raises
    ------
    DomainError
        Gradients are asked of a quantized network, whose answers are steps, or SmoothGrad of texts; the message says what to use.
    MissingExtra
        captum is not installed.
    """

    def __init__(
        self, network: Network, method: Method, *, steps: int = 32, device: torch.device | str = "cpu"
    ) -> None:
        self.method: Method = method
        self._steps, self._device = steps, device
        self._kind = network.signature.answers
        self._before = network.signature.preprocessing
        self._text = self._before.kind == "text"
        self._module = network.module(device=device)
        if method == "occlusion":
            return
        if has_quantized_part(self._module):
            raise DomainError(
                "a quantized network has no gradients: its answers are steps", where=method, hint="use occlusion"
            )
        if method == "smooth_grad" and self._text:
            raise DomainError(
                "noise on the ids of tokens would be other tokens", where=method, hint="use integrated_gradients"
            )
        if find_spec("captum") is None:
            raise MissingExtra("captum", "explain", where=method)

    def outputs(self, inputs: NDArray[Any]) -> NDArray[np.float64]:
        """Scores (M, K) of prepared samples (M, ...)."""
        with torch.no_grad():
            found = [
                self._module(torch.as_tensor(inputs[start : start + 64], device=self._device)).double().cpu()
                for start in range(0, len(inputs), 64)
            ]
        return torch.cat(found).numpy()

    def score(self, inputs: NDArray[Any], place: int) -> NDArray[np.float64]:
        """What is explained, (M,), of prepared samples."""
        return log_odds(self.outputs(inputs), place, self._kind)

    def __call__(
        self, sample: NDArray[Any], parts: Parts, place: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """The scores of the parts (parts,) and, of an image by gradients, of its pixels (H, W).

        Parameters
        ----------
        sample
            Prepared, (1, ...).
        place
            The output that is explained.

        Raises
        ------
        DomainError
            The gradients are not finite, or the network cuts them off; or a hidden column is a gap, which has no gradient.
        """
        if self.method == "occlusion":
            return occlusion(parts, lambda inputs: self.score(inputs, place)), None
        if isinstance(parts, Columns) and not np.isfinite(parts.hidden).all():
            raise DomainError(
                "what stands for a missing value here is a gap, to which no path of numbers leads",
                where=self.method,
                hint="use occlusion",
            )
        given = torch.as_tensor(sample, device=self._device)
        try:
            values = self._of_texts(given, place) if self._text else self._of_numbers(given, parts, place)
        except RuntimeError as error:
            raise DomainError(
                f"no gradient reaches the input ({short(str(error), 100)})", where=self.method, hint="use occlusion"
            ) from error
        found = values.detach().double().cpu().numpy()[0]
        if not np.isfinite(found).all():
            raise DomainError("its gradients are not finite", where=self.method, hint="use occlusion")
        pixels = found.reshape(-1, *found.shape[-2:]).sum(0) if isinstance(parts, Cells) else None
        return parts.of_inputs(found), pixels

    def _of_numbers(self, given: Tensor, parts: Parts, place: int) -> Tensor:
        """Attributions of the numbers of a sample, in its shape."""
        from captum.attr import IntegratedGradients, NoiseTunnel, Saliency

        forward = self._forward(place)
        given = given.clone().requires_grad_(True)
        hidden = torch.as_tensor(cast("Any", parts).hidden, device=self._device).reshape(given.shape)
        if self.method == "integrated_gradients":
            return IntegratedGradients(forward).attribute(
                given, hidden, n_steps=self._steps, internal_batch_size=_BATCH
            )
        if self.method == "saliency":
            return Saliency(forward).attribute(given)
        if self.method == "gradient_x_input":
            # From what hides it: 0 is no absence where inputs are normalised.
            return Saliency(forward).attribute(given, abs=False) * (given - hidden)
        spread = float(given.detach().max() - given.detach().min()) * _NOISE or _NOISE
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same noise whenever the same sample is explained
            smooth = NoiseTunnel(Saliency(forward)).attribute(
                given, nt_type="smoothgrad", nt_samples=_NOISY, nt_samples_batch_size=_BATCH, stdevs=spread, abs=False
            )
        return cast("Tensor", smooth) * (given - hidden)

    def _of_texts(self, given: Tensor, place: int) -> Tensor:
        """Attributions of the tokens (1, L) or (1, 2, L), summed over the numbers of their embeddings."""
        from captum.attr import LayerGradientXActivation, LayerIntegratedGradients

        layer = _embedding(self._module, given)
        forward = self._forward(place)
        if self.method == "integrated_gradients":
            special = torch.tensor(sorted(special_ids(self._before)), device=given.device)
            found = LayerIntegratedGradients(forward, layer).attribute(
                given,
                torch.where(torch.isin(given, special), given, self._before.padding),
                n_steps=self._steps,
                internal_batch_size=_BATCH,
            )
        else:
            times = self.method == "gradient_x_input"
            found = LayerGradientXActivation(forward, layer, multiply_by_inputs=times).attribute(given)
        values = cast("Tensor", found)
        summed = values.abs().sum(-1) if self.method == "saliency" else values.sum(-1)
        return summed.reshape(given.shape)

    def _forward(self, place: int) -> Callable[[Tensor], Tensor]:
        """Inputs (N, ...) → what is explained, (N,)."""

        def forward(inputs: Tensor) -> Tensor:
            outputs: Tensor = self._module(inputs)
            if self._kind != "classes" or outputs.shape[1] < 2:
                return outputs[:, place]
            others = torch.cat([outputs[:, :place], outputs[:, place + 1 :]], 1)
            return outputs[:, place] - others.logsumexp(1)

        return forward


def _embedding(module: nn.Module, given: Tensor) -> nn.Module:
    """The layer that looks the tokens up, and not their places. Raises `DomainError` where none does."""
    seen: list[nn.Module] = []

    def watch(part: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if torch.equal(inputs[0].flatten(), given.flatten()):
            seen.append(part)

    layers = [part for part in module.modules() if isinstance(part, nn.Embedding)]
    hooks = [layer.register_forward_pre_hook(watch) for layer in layers]
    try:
        with torch.no_grad():
            module(given)
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise DomainError("no layer of it looks tokens up", where="the network", hint="use occlusion")
    return seen[0]
