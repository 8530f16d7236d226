"""A static student: a table of token vectors whose weighted mean is regressed to the teacher's embedding, in seconds.

``min_E,w Σ_x 1 − cos(Σ_t w_t E_t, P f(x))`` over texts without labels, with P the principal directions of the embeddings f(x), from the
SIF-weighted components of the teacher's embedding of each token alone (Arora, Liang and Ma, "A Simple but Tough-to-Beat Baseline for
Sentence Embeddings", 2017; Tulkens and van Dongen, "Model2Vec", 2024, who stop there).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Network
from mapsto.mapping import DataSource, Mapping
from mapsto_runtime.preprocessing.texts import ASSET

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Static"]


def _encoder() -> Network:
    """For the contract suite: an encoder with a token for each grey of its images, as if they were texts."""
    from mapsto.nn.network.examples import reading_greys

    return reading_greys()


class Static(Mapping[Network, Network]):
    """From an encoder that reads texts to a static one with the same tokenizer; its output is an embedding, so that a head is fitted next.

    It knows words and not their order: "card lost" is "lost card". Use `prune.vocabulary` before, since the table is all that it stores.

    Raises `DataError` for data without a sample or of no token ids, and `DomainError` for a network that reads no texts, or pairs.

    >>> from mapsto import datasets
    >>> from mapsto.mappings.distill.static import _encoder
    >>> greys = datasets.subset(data=datasets.digits(size=8), per_class=4)  # as if they were tokens
    >>> small = Static(data=greys, size=4)(_encoder())
    >>> small.signature.outputs[0].shape, tuple(small.tensors["vectors.weight"].shape)
    (('N', 4), (256, 4))
    """

    version: ClassVar[int] = 2

    data: DataSource
    """Texts of the domain; labels are not used. Some thousands: the table has a vector for each token."""
    size: int = Field(default=256, ge=1)
    """Numbers of a vector, at most those of the teacher's embedding."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the texts."""
    learning_rate: float = Field(default=0.003, gt=0)
    """The highest of Adam's learning rates."""
    batch_size: int = Field(default=128, ge=1)
    """Texts of a step."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the tokens that a text is trained without, here and in trainings that follow; on intents every share was worse than none."""

    contract: ClassVar[dict[str, Any]] = {
        "data": {"subset": {"data": {"digits": {"size": 8}}, "per_class": 4}},
        "size": 4,
        "epochs": 2,
    }
    contract_input: ClassVar[Any] = staticmethod(_encoder)

    def apply(self, value: Network, ctx: Context) -> Network:
        import numpy as np

        from mapsto.nn.distill.static_table import first_table, fitted, principal
        from mapsto.nn.network.build import network_of
        from mapsto.nn.network.examples import example_inputs
        from mapsto.nn.network.inference import embeddings
        from mapsto_runtime.preprocessing.texts import tokenizer_of

        read = value.signature.preprocessing
        if read.kind != "text" or ASSET not in value.assets or read.texts != 1:
            raise DomainError(
                "the network does not read single texts",
                where=self.name,
                hint="give an encoder of texts, as networks.minilm",
            )
        ids = self._ids(ctx, value)
        tokenizer: Any = tokenizer_of(read)
        tokens = max(tokenizer.get_vocab().values()) + 1
        if int(ids.max()) >= tokens:
            raise DataError(
                "it holds ids that the tokenizer lacks", where=f"{self.name}: data", hint="give datasets.text(…)"
            )
        wanted = embeddings(value.module(), ids, read, device=ctx.device)
        directions = principal(wanted, self.size)
        counts = np.bincount(ids.reshape(-1), minlength=tokens)
        counts[read.padding] = 0
        start = first_table(value, directions, counts, tokenizer.encode("").ids)
        table, near = fitted(
            start,
            ids,
            wanted @ directions,
            padding=read.padding,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            dropout=self.dropout,
            generator=ctx.random("static"),
        )
        ctx.note(f"on the texts that it was trained on its embeddings have a cosine of {near:.3f} to the teacher's")
        return network_of(
            "mapsto.nn.networks.static_text:static_text",
            {
                "tokens": tokens,
                "size": directions.shape[1],
                "padding": read.padding,
                "dropout": self.dropout,
                "classes": None,
            },
            read,
            tensors={"vectors.weight": table.vectors, "weights.weight": table.weights},
            assets=value.assets,
            example=example_inputs(value.signature, 2)[0],
        )

    def _ids(self, ctx: Context, value: Network) -> NDArray[np.int64]:
        from mapsto.data.checks import require_some

        inputs = require_some(ctx.dataset(self.data), where=f"{self.name}: data").inputs
        if inputs.dtype.kind not in "iu":
            raise DataError(
                f"its inputs are {inputs.dtype}, no token ids", where=f"{self.name}: data", hint="give datasets.text(…)"
            )
        return inputs.reshape(len(inputs), -1)[:, : value.signature.preprocessing.length].astype("int64")
