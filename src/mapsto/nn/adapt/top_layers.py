"""The top layers of a text encoder alone, fed with the hidden states of the layers below, which are computed once and kept.

Where only the top layers are trained, the lower ones give the same for a text every time: keeping that halves the work of a step, and more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.networks.hf import TextEncoder
from mapsto.nn.train.language.encoder_parts import encoder_of, layers_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["HiddenStates", "TopLayers", "path_of_layers", "share_of_layers", "tunable_layers"]

_CHUNK = 32
"""Texts, of like length, that are worked on at once."""
_MOST_KEPT = 1 << 31
"""Bytes of hidden states that are kept; where there would be more they are computed again each time."""
_AGREE = 1e-3
_USUAL = 3
"""Top layers that `adapt.contrastive` tunes by default."""


def path_of_layers(module: TextEncoder) -> str:
    """The dotted path of the encoder's list of layers. Raises `DomainError` where it has none."""
    layers = layers_of(module)
    return next(path for path, part in module.named_modules() if part is layers)


def tunable_layers(value: Network) -> int:
    """How many top layers are worth tuning: three of six and more, half of fewer; 0 where they cannot be parted from the others."""
    try:
        count = min(_USUAL, len(layers_of(encoder_of(value, where="top layers"))) // 2)
        if count:
            ids = np.full((2, 4), value.signature.preprocessing.padding + 1, np.int64)
            HiddenStates(value, ids, count, torch.device("cpu"), where="top layers")
    except DomainError:
        return 0
    return count


def share_of_layers(value: Network, count: int) -> float:
    """The share of the encoder's layers that so many are."""
    return count / len(layers_of(encoder_of(value, where="top layers")))


class _Given(nn.Module):
    """In the place of the table of words: hidden states that are there already."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: Tensor | None = None

    def forward(self, *_: Any, **__: Any) -> Tensor:
        if self.hidden is None:
            raise DomainError("there are no hidden states", where="top layers", hint="call the module with some")
        return self.hidden


class TopLayers(nn.Module):
    """The top layers, from hidden states to the embedding. Its `layers` alone want gradients.

    Parameters
    ----------
    value
        An encoder of transformers that reads texts.
    count
        How many layers.

    Raises
    ------
    DomainError
        The network is no such encoder, or its layers cannot be parted.
    """

    def __init__(self, value: Network, count: int, *, where: str) -> None:
        super().__init__()
        self.text = encoder_of(value, where=where)
        self.count, self._padding = count, self.text.padding
        inner: Any = self.text.encoder
        layers = layers_of(self.text)
        if not isinstance(getattr(inner, "embeddings", None), nn.Module) or count >= len(layers):
            raise DomainError(
                f"of an encoder with {len(layers)} layers the top {count} cannot be trained over the others",
                where=where,
                hint=f"set layers to 1 to {max(len(layers) - 1, 1)}, with an encoder that has `embeddings`",
            )
        del layers[: len(layers) - count]
        inner.embeddings = _Given()
        if isinstance(getattr(inner, "pooler", None), nn.Module):
            inner.pooler = None
        self.text.classifier = nn.Identity()
        self.requires_grad_(False)
        layers.requires_grad_(True)

    @property
    def layers(self) -> nn.ModuleList:
        """Those that are trained."""
        return layers_of(self.text)

    def forward(self, hidden: Tensor, there: Tensor) -> Tensor:
        """Hidden states (B, L, D) and which of them are of tokens (B, L) → embeddings (B, D)."""
        cast("Any", self.text.encoder).embeddings.hidden = hidden
        return self.text.embed(torch.where(there, self._padding + 1, self._padding))


class HiddenStates:
    """What the lower layers make of texts.

    Parameters
    ----------
    value
        The encoder.
    ids
        Token ids (N, L).
    count
        Layers on top, which are left out.

    Raises
    ------
    DomainError
        The network is no encoder of texts, or the top layers over the others do not give what the whole does.
    """

    def __init__(self, value: Network, ids: NDArray[np.int64], count: int, device: torch.device, *, where: str) -> None:
        self._ids, self._padding = ids, value.signature.preprocessing.padding
        self.lengths: NDArray[np.int64] = (ids != self._padding).sum(1)
        whole = encoder_of(value, where=where)
        top = TopLayers(value, count, where=where).eval().to(device)
        self._lower = encoder_of(value, where=where).eval().to(device)
        layers = layers_of(self._lower)
        del layers[len(layers) - count :]
        if isinstance(getattr(self._lower.encoder, "pooler", None), nn.Module):
            cast("Any", self._lower.encoder).pooler = None
        size = self._hidden(np.arange(1)).shape[-1]
        self._kept: list[Tensor] | None = None
        self._device = device
        self._require_same(whole.to(device), top, where)
        if 4 * size * int(self.lengths.sum()) <= _MOST_KEPT:
            self._kept = self._all()

    def __len__(self) -> int:
        return len(self._ids)

    def batch(self, places: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Hidden states (B, L, D) of some texts, and which of them are of tokens (B, L)."""
        lengths = torch.as_tensor(self.lengths[places], device=self._device)
        if self._kept is None:
            hidden = self._hidden(places)
        else:
            hidden = nn.utils.rnn.pad_sequence([self._kept[place] for place in places.tolist()], batch_first=True)
        return hidden, torch.arange(hidden.shape[1], device=self._device) < lengths[:, None]

    def embedded(self, call: nn.Module, places: NDArray[np.int64]) -> Tensor:
        """Embeddings (B, D) of some texts by `call`, the top layers: in parts of like length, so that little is padded."""
        order = places[np.argsort(self.lengths[places], kind="stable")]
        parts = np.array_split(order, max(1, round(len(order) / _CHUNK)))
        found = torch.cat([call(*self.batch(part)) for part in parts])
        return found[torch.as_tensor(np.argsort(np.argsort(self.lengths[places], kind="stable")), device=found.device)]

    def _hidden(self, places: NDArray[np.int64]) -> Tensor:
        ids = self._ids[places][:, : int(self.lengths[places].max())]
        with torch.no_grad():
            return self._lower.hidden(torch.as_tensor(ids, device=next(self._lower.parameters()).device))

    def _all(self) -> list[Tensor]:
        kept: list[Tensor] = [torch.empty(0)] * len(self._ids)
        order = np.argsort(self.lengths, kind="stable")
        for part in np.array_split(order, max(1, round(len(order) / _CHUNK))):
            for place, row in zip(part.tolist(), self._hidden(part), strict=True):
                kept[place] = row[: int(self.lengths[place])].clone()
        return kept

    def _require_same(self, whole: TextEncoder, top: TopLayers, where: str) -> None:
        """Raises `DomainError` where something stands between the layers or behind them that the parts miss."""
        few = np.arange(min(2, len(self._ids)))
        ids = torch.as_tensor(self._ids[few][:, : int(self.lengths[few].max())], device=self._device)
        with torch.no_grad():
            wanted, found = whole.eval().embed(ids), top(*self.batch(few))
        if not torch.allclose(found, wanted, atol=_AGREE * float(wanted.abs().max())):
            raise DomainError(
                "the top layers over the hidden states of the others do not give what the whole encoder gives",
                where=where,
                hint="use adapt.finetune for this encoder",
            )
