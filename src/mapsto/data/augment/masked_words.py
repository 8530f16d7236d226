"""Put other words in the place of some, such as a masked language model finds likely there.

Each word of one token is masked with a probability p, all of a text's at once, and drawn anew from ``p(token | the rest)`` among the k
likeliest whole words (Wu et al., "Conditional BERT Contextual Augmentation", 2019, without the condition; Kobayashi, "Contextual
Augmentation", 2018). The model comes from `train.masked_language` with ``keep_head``.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

from pydantic import Field

from mapsto.data.augment import Augmentation, Drawn
from mapsto.data.augment._base import SampleKind
from mapsto.data.text.masked_language_head import HEAD
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mapping import NetworkSource

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor, nn

    from mapsto.context import Context
    from mapsto.data.augment._words import TextWords

__all__ = ["MaskedWords"]

_BATCH = 64


class MaskedWords(Augmentation):
    """Texts, some of whose words are others that fit.

    >>> MaskedWords(probability=0.2).likeliest
    10
    """

    on: ClassVar[tuple[SampleKind, ...]] = ("texts",)

    probability: float = Field(default=0.15, ge=0, le=1)
    """p, of each word to be replaced; words of several tokens stay."""
    likeliest: int = Field(default=10, ge=1)
    """k, among how many words the new one is drawn; the old one may be among them."""
    network: NetworkSource | None = None
    """The masked language model: what `train.masked_language` gives with ``keep_head: true``. It has to be given."""

    def bound(self, ctx: Context) -> Augmentation:
        return self if self.network is None else dataclasses.replace(self, network=ctx.network(self.network))

    def draw(self, drawn: Drawn, generator: Generator) -> Drawn:
        """Raises `DomainError` where the network has no masked language model, or reads by another tokenizer."""
        import numpy as np
        import torch

        from mapsto.data.augment._words import known_words, numpy_generator

        words, rng = known_words(drawn, name=self.name), numpy_generator(generator)
        model = self._model(words)
        ids = drawn.x.cpu().numpy().reshape(-1, drawn.x.shape[-1]).copy()
        chosen = _single(ids, words) & (rng.random(ids.shape) < self.probability)
        mask = words.pieces.mask
        masked = np.where(chosen, 0 if mask is None else mask, ids)
        for start in range(0, len(ids), _BATCH):
            part = slice(start, start + _BATCH)
            if chosen[part].any():
                scores = model.scores(torch.as_tensor(masked[part]), torch.as_tensor(chosen[part]))
                ids[part][chosen[part]] = model.known[_drawn(scores, self.likeliest, rng)]
        return dataclasses.replace(drawn, x=torch.as_tensor(ids, device=drawn.x.device).view(drawn.x.shape))

    def _model(self, words: TextWords) -> _Model:
        network = self.network
        if not isinstance(network, Network) or HEAD not in network.assets:
            raise DomainError(
                "masked_words draws words from a masked language model, and there is none",
                where=f"augment: {self.name}",
                hint="set network to a step of train.masked_language with keep_head: true",
            )
        if network.signature.preprocessing.tokenizer != words.digest or words.pieces.mask is None:
            raise DomainError(
                "the masked language model reads by another tokenizer than the network that is adapted",
                where=f"augment: {self.name}",
                hint="train both from the same encoder",
            )
        held = _HELD.get(id(network))
        if held is None or held[0] is not network:  # keeps `network` alive: ids recur
            _HELD.clear()
            held = _HELD[id(network)] = (network, _opened(network, words))
        return held[1]


class _Model(NamedTuple):
    known: NDArray[np.int64]
    """The ids that may be drawn, (K,)."""
    scores: Callable[[Tensor, Tensor], NDArray[np.float64]]
    """Masked texts (B, L), and which tokens are asked for → scores (M, K)."""


_HELD: dict[int, tuple[Network, _Model]] = {}


def _opened(network: Network, words: TextWords) -> _Model:
    import numpy as np
    import torch
    from safetensors.torch import load
    from torch.nn import functional

    head = load(network.assets[HEAD])
    module: Any = network.module()
    ids = head["known"].numpy()
    whole = ~words.pieces.special[ids] & ~words.pieces.continues[ids]
    if words.pieces.space:  # by itself it is no word
        whole &= ids != words.tokenizer.token_to_id(words.pieces.space)
    table: Tensor = module.encoder.get_input_embeddings().weight.detach()[head["known"]][torch.as_tensor(whole)]
    bias = head["bias"][torch.as_tensor(whole)]

    def scores(masked: Tensor, asked: Tensor) -> NDArray[np.float64]:
        with torch.no_grad():
            hidden = cast("nn.Module", module).hidden(masked)[asked]  # pyright: ignore[reportCallIssue]
            changed = functional.gelu(functional.linear(hidden, head["linear.weight"], head["linear.bias"]))
            size = changed.shape[1:]
            normed = functional.layer_norm(changed, size, head["norm.weight"], head["norm.bias"])
            return functional.linear(normed, table, bias).double().numpy()

    return _Model(known=np.asarray(ids[whole]), scores=scores)


def _single(ids: NDArray[np.int64], words: TextWords) -> NDArray[np.bool_]:
    """Which tokens are a whole word each."""
    import numpy as np

    plain = (words.pieces.numbers(ids) >= 0) & ~words.pieces.continues[ids]
    goes_on = np.zeros_like(plain)
    goes_on[:, :-1] = words.pieces.continues[ids[:, 1:]]
    return plain & ~goes_on


def _drawn(scores: NDArray[np.float64], likeliest: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A column of each row (M,), by the softmax of the highest scores: the highest after Gumbel noise (Gumbel, 1954)."""
    import numpy as np

    count = min(likeliest, scores.shape[1])
    best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    noisy = np.take_along_axis(scores, best, 1) + rng.gumbel(size=best.shape)
    return np.take_along_axis(best, noisy.argmax(1)[:, None], 1)[:, 0]
