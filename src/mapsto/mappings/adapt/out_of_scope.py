"""Let a classifier answer "none of these" where an input is far from all of its classes.

``out of scope where max_k cos(z, c_k) < t`` with c_k the mean embedding of class k. t is chosen by examples that are left out in turn, and
by examples out of scope where some are given (Larson et al., "An Evaluation Dataset for Intent Classification and Out-of-Scope
Prediction", 2019). The answer is one more class of the network, so that whatever runs it gives it alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Network, Table
from mapsto.mapping import DataSource, Mapping

if TYPE_CHECKING:
    from mapsto.nn.adapt.scope import Scope

__all__ = ["OutOfScope"]

_DIGITS: dict[str, Any] = {"subset": {"data": {"digits": {"size": 16}}, "per_class": 3}}


class OutOfScope(Mapping[Network, Network]):
    """The classifier with one more class, for what is far from the examples of all others.

    Nothing is trained: the other classes' scores stay as they are. Where the network holds a frozen branch beside one that was tuned on
    examples (`adapt.contrastive`), the frozen one is looked at: by an embedding that was tuned on them, examples look nearer to each other
    than any new text does. Of a network that was tuned on these examples as a whole, t would be too high. A class of one example has
    nothing to be left out, so that two examples of some class are the least.
    """

    version: ClassVar[int] = 2

    data: DataSource
    """The labelled examples of the network's classes."""
    outside: DataSource | None = None
    """Examples out of scope, whose labels are not read."""
    called: str = Field(default="none of these", min_length=1)
    """The new class."""
    keep: float = Field(default=0.95, gt=0.5, lt=1)
    """Share of the inputs within scope that shall stay within; with `outside` at least 2 keep − 1."""

    contract: ClassVar[dict[str, Any]] = {"data": _DIGITS}

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DomainError` for a network that does not give one class a sample, `DataError` for other classes or too few examples."""
        import numpy as np
        import torch

        from mapsto.nn.adapt import scope
        from mapsto.nn.adapt.examples import examples_of
        from mapsto.nn.adapt.features import features
        from mapsto.nn.adapt.ridge import rooted
        from mapsto.nn.edits.out_of_scope import OutOfScope as Edit
        from mapsto.nn.edits.root_head import takes_root
        from mapsto.nn.edits.tuned_branch import untuned_size
        from mapsto.nn.network.build import with_output
        from mapsto.nn.network.head import require_head_path

        signature = value.signature
        if signature.classes is None or signature.answers != "classes" or value.adaptation is not None:
            raise DomainError(
                "the network does not give one class a sample",
                where=self.name,
                hint="give it a head first (adapt.best, adapt.linear)",
            )
        if self.called in signature.classes:
            raise DataError(
                f"'{self.called}' is one of the classes",
                where=f"{self.name}.called",
                hint="give another name, or leave its examples out of data",
            )
        examples = examples_of(value, self.data, ctx, where=self.name, told=False)
        if examples.samples.classes != signature.classes:
            raise DataError(
                "the examples are of other classes than the network's",
                where=self.name,
                hint="give those it was adapted to",
            )
        module = value.module()
        path = require_head_path(module)
        root = takes_root(module.get_submodule(path))
        untuned = untuned_size(module, examples.features.shape[1])
        rows = (rooted(examples.features) if root else examples.features)[:, :untuned]
        within = scope.left_out_likeness(rows, examples.labels, examples.outputs)
        within = within[np.isfinite(within)]
        if not len(within):
            raise DataError(
                "every class has one example, so that nothing can be left out to see how near examples are",
                where=self.name,
                hint="give two examples or more of some classes, or leave out-of-scope detection out",
            )
        means = scope.means_of(rows, examples.labels, examples.outputs)
        outside = None
        if self.outside is not None:
            given = features(value, ctx.dataset(self.outside).inputs, ctx)
            outside = scope.likeness((rooted(given) if root else given)[:, :untuned], means)
        found = scope.calibrated(within, outside, self.keep)
        self._tell(found, len(within), None if outside is None else len(outside), ctx)
        edit = Edit(
            path=path,
            inputs=rows.shape[1],
            means=len(means),
            threshold=round(found.threshold, 6),
            steepness=round(found.steepness, 4),
        )
        edit.apply(module)
        layer: Any = module.get_submodule(f"{path}.scope")
        with torch.no_grad():
            layer.weight.copy_(torch.as_tensor(means))
        classes = (*signature.classes, self.called)
        return value.with_module(module, edit, signature=with_output(signature, len(classes), classes))

    def _tell(self, found: Scope, within: int, outside: int | None, ctx: Context) -> None:
        said = (
            f"'{self.called}' where the cosine with the nearest class mean is below {found.threshold:.3f}: {100 * found.kept:.1f} % of "
            f"{within} left-out examples stay within"
        )
        rows = [("threshold", found.threshold, ""), ("kept", 100 * found.kept, "%")]
        if outside is not None and found.refused is not None and found.auroc is not None:
            said += f", {100 * found.refused:.1f} % of {outside} examples out of scope are told so (AUROC {100 * found.auroc:.1f} %)"
            rows += [("refused", 100 * found.refused, "%"), ("AUROC", 100 * found.auroc, "%")]
        ctx.note(said)
        ctx.attach("out_of_scope", Table(columns=("figure", "value", "unit"), rows=tuple(rows)))
