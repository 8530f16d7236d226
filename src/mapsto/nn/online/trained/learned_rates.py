"""Inner rates of what a network trains: one for every parameter, from a meta-trained network where it has some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mapsto.kinds import Network
from mapsto.nn.network.head import head_path
from mapsto.nn.online.trained.growing_network import GrowingNetwork

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LearnedRates"]

_USUAL = 0.1


class LearnedRates:
    """Rates, which begin as the network's own learned ones (`meta.metasgd`), else as its inner rate, else as `usual`.

    Parameters
    ----------
    base
        The network as it came.
    network
        What is trained.
    usual
        The rate of what the network has none for; None for its inner rate, or 0.1 without one.
    """

    def __init__(self, base: Network, network: GrowingNetwork, usual: float | None) -> None:
        self._network = network
        own = {} if base.adaptation is None else base.adaptation.tensors
        settings = {} if base.adaptation is None else base.adaptation.settings
        given = settings.get("rate")
        known = float(given) if isinstance(given, (int, float)) else _USUAL
        self._usual = known if usual is None else usual
        path = head_path(network.module)
        self._of_head = {name: own.get(f"{path}.{name.rpartition('.')[2]}") for name in ("head.weight", "head.bias")}
        self.tensors: dict[str, Tensor] = {}
        for name, parameter in network.parameters.items():
            found = own.get(name) if usual is None else None
            fits = found is not None and found.shape == parameter.shape
            self.tensors[name] = found.detach().clone() if fits and found is not None else self._constant(parameter)
        if usual is not None:
            self._of_head = dict.fromkeys(self._of_head)

    def grow(self) -> None:
        """Rates for the rows that the head has grown."""
        for name, rates in self._of_head.items():
            tensor, parameter = self.tensors[name], self._network.parameters[name]
            more = len(parameter) - len(tensor)
            if more <= 0:
                continue
            new = self._constant(parameter[:more])
            if rates is not None and rates.shape[1:] == parameter.shape[1:]:
                new = torch.stack([rates[place % len(rates)] for place in range(len(tensor), len(parameter))]).detach()
            self.tensors[name] = torch.cat([tensor, new]).clone()

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from ``rates.NAME``. Raises `ValueError` or `LookupError` where one does not fit."""
        for name, parameter in self._network.parameters.items():
            tensor = torch.tensor(arrays[f"rates.{name}"])
            if (tensor.shape, tensor.dtype) != (parameter.shape, parameter.dtype) or not tensor.isfinite().all():
                raise ValueError(f"rates of {name} of shape {tuple(tensor.shape)}, of another type, or NaN among them")
            self.tensors[name] = tensor

    def _constant(self, like: Tensor) -> Tensor:
        return torch.full_like(like.detach(), self._usual)
