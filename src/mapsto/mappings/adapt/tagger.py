"""Tag the words of texts: logistic regression on the hidden state of each word's first token, the encoder frozen.

``min_W  ½‖W‖² + C Σ_l −log softmax(W h_l + b)[y_l]`` over the first tokens of words (Devlin et al., "BERT", 2019, by features). Accuracy of
words and F1 of spans come from cross-validation by sentence.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Network, Table
from mapsto.mapping import DataSource, Mapping
from mapsto.nn.adapt.token_features import TAGGED_EXAMPLE
from mapsto.nn.train.language.contract_encoder import contract_encoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.kinds import Samples

__all__ = ["Tagger"]

_FOLDS = 5


class Tagger(Mapping[Network, Network]):
    """A text encoder that gives each token the scores of the tags of `data`; its package answers spans of words."""

    version: ClassVar[int] = 2

    data: DataSource
    """Sentences with tags (`datasets.tags`)."""
    strength: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """C: the inverse of the penalty. `auto`: the likeliest of several for words of sentences that were not learnt from."""
    folds: int = Field(default=_FOLDS, ge=0)
    """Of the cross-validation that says how well held-out sentences are tagged, equal ones in one fold; 0 or 1: none."""

    contract: ClassVar[dict[str, Any]] = {"data": {"tags": {"file": str(TAGGED_EXAMPLE)}}, "folds": 2}
    contract_input: ClassVar[Any] = staticmethod(contract_encoder)

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DomainError` for a network that reads no texts or gives no hidden states, `DataError` for data without tags of words."""
        import numpy as np
        import torch

        from mapsto.nn.adapt import logistic
        from mapsto.nn.adapt.token_features import token_features
        from mapsto.nn.edits.token_head import TokenHead
        from mapsto.nn.network.head import require_head_path, set_head

        before = value.signature.preprocessing
        if before.kind != "text" or before.texts != 1:
            raise DomainError("it takes no texts", where=self.name, hint="give a text encoder, as networks.minilm")
        samples = ctx.dataset(self.data)
        if samples.labels.shape != samples.inputs.shape or not (samples.labels >= 0).any():
            raise DataError("the data has no tags of words", where=f"{self.name}: data", hint="give datasets.tags")
        rows, labels, sentences = token_features(value, samples.inputs, samples.labels, ctx)
        texts: NDArray[np.int64] = np.unique(samples.inputs, axis=0, return_inverse=True)[1].reshape(-1)
        strength = self.strength
        if strength == "auto":
            strength, losses = logistic.chosen(
                rows, labels, len(samples.classes), ctx.random("folds"), groups=texts[sentences]
            )
            tried = ", ".join(f"{each:g}: {loss:.3f}" for each, loss in losses.items())
            how = f" was chosen by log-loss, cross-validated by sentence ({tried})" if losses else ""
            ctx.note(f"strength: {strength:g}{how}")
        self._judge(rows, labels, sentences, texts, samples, strength, ctx)
        weight, bias = logistic.fit(rows, labels, len(samples.classes), strength=strength)
        module = value.module()
        path = require_head_path(module)
        edit = TokenHead(path=path, inputs=rows.shape[1], outputs=len(samples.classes))
        edit.apply(module)
        set_head(module, torch.as_tensor(weight).float(), torch.as_tensor(bias).float())
        output = dataclasses.replace(value.signature.outputs[0], shape=("N", len(samples.classes), "L"))
        signature = dataclasses.replace(
            value.signature, outputs=(output, *value.signature.outputs[1:]), classes=samples.classes, answers="tags"
        )
        return value.with_module(module, edit, signature=signature, adaptation=None)

    def _judge(
        self,
        rows: NDArray[np.float32],
        labels: NDArray[np.int64],
        sentences: NDArray[np.int64],
        texts: NDArray[np.int64],
        samples: Samples,
        strength: float,
        ctx: Context,
    ) -> None:
        """Attach how well sentences are tagged that the head was not fitted to; `texts` numbers them, equal ones alike."""
        import numpy as np

        from mapsto.nn.adapt import logistic
        from mapsto.nn.adapt.cross_validation import folds_of_groups
        from mapsto.nn.evaluate.tagging import tagging_figures

        folds = min(self.folds, len(np.unique(texts[sentences])))
        if folds < 2:
            ctx.warn(
                "there are too few sentences to say how well others are tagged; give two or more, and folds: 2 or more"
            )
            return
        fold = folds_of_groups(texts[sentences], folds, ctx.random("sentences"))
        said = np.zeros(len(labels), np.int64)
        for number in range(folds):
            learn = fold != number
            if len(np.unique(labels[learn])) < 2:
                ctx.warn(
                    "without some of the sentences one tag alone is left, so that it is not known how well others are tagged"
                )
                return
            weight, bias = logistic.fit(rows[learn], labels[learn], len(samples.classes), strength=strength)
            said[~learn] = (rows[~learn] @ weight.T + bias).argmax(1)
        ends = np.flatnonzero(np.diff(sentences)) + 1
        wanted, given = (
            [[samples.classes[tag] for tag in part] for part in np.split(each, ends)] for each in (labels, said)
        )
        found = tagging_figures(wanted, given, known=samples.classes)
        columns = ("label", "precision", "recall", "f1", "support")
        table: Any = tuple(tuple(row[name] for name in columns) for row in found.rows())
        ctx.attach("spans", Table(columns=columns, rows=table, units=dict.fromkeys(columns[1:4], "%")))
        figures = (("words right", 100 * found.right / found.words), ("span F1", found.f1), ("folds", float(folds)))
        ctx.attach("tagging", Table(columns=("figure", "value"), rows=figures))
        ctx.note(
            f"{100 * found.right / found.words:.1f} % of the words and {found.f1:.1f} % of the spans (F1) are right by cross-validation in "
            f"{folds} folds"
        )
