"""Find classes among samples without labels: groups of their embeddings by angle become the outputs of a linear head.

``score_k(x) = c_k · r(f(x))`` with r the root of the embedding and c_k of length 1, from spherical k-means (Dhillon and Modha, "Concept
Decompositions for Large Sparse Text Data using Clustering", 2001). How many groups there are is given, or estimated by the mean
silhouette (Rousseeuw, 1987).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DataError
from mapsto.kinds import Network
from mapsto.mapping import DataSource, Mapping
from mapsto.nn.semi.on_features import POOL

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Discover"]


class Discover(Mapping[Network, Network]):
    """A network whose answer is a group, `group 1` the largest; the embedding stays as it is.

    `evaluate.clusters` says how well the groups match classes that are known for other samples.
    """

    unlabelled: DataSource = Field(
        description="The samples, such as `images` with its field `unlabelled`. Labels that they have are never read."
    )
    groups: int | None = Field(default=None, ge=2)
    """How many classes there are; None: estimated, 2 to `most`."""
    most: int = Field(default=50, ge=2)
    """The largest estimate of how many there are."""
    starts: int = Field(default=5, ge=1)
    """Clusterings from other first centres, of which the closest is taken."""

    contract: ClassVar[dict[str, Any]] = {"unlabelled": POOL, "most": 4, "starts": 1}

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DataError` for fewer samples than groups or NaN, `DomainError` where there is no embedding."""
        import torch

        from mapsto.data.checks import require_finite, require_some
        from mapsto.nn.adapt.features import features
        from mapsto.nn.network.build import taking
        from mapsto.nn.network.dense_outputs import refuse_dense
        from mapsto.nn.network.head import headed, set_head
        from mapsto.nn.semi.clusters import clustered

        refuse_dense(value.signature, where=self.name)
        samples = require_some(ctx.dataset(self.unlabelled), where=f"{self.name}: unlabelled")
        require_finite(samples.inputs, where=f"{self.name}: unlabelled")
        least = self.groups or 3
        if len(samples) < least:
            raise DataError(
                f"{len(samples)} samples cannot make {least} groups",
                where=f"{self.name}: unlabelled",
                hint="give more samples, or lower groups",
            )
        known = features(value, samples.inputs, ctx)
        count = self.groups or self._estimated(known, ctx)
        group, centres = clustered(known, count, ctx.random("clusters"), starts=self.starts)
        sizes = ", ".join(map(str, _sizes(group, count)))
        ctx.note(f"{count} groups of {len(samples)} samples, by size: {sizes}")
        names = tuple(f"group {number + 1}" for number in range(count))
        module = value.module()
        edit, signature = headed(value, module, names, fresh=True, root=True)
        set_head(module, torch.as_tensor(centres).float(), torch.zeros(count))
        return value.with_module(
            module, *([edit] if edit else []), signature=taking(signature, samples), adaptation=None
        )

    def _estimated(self, known: NDArray[Any], ctx: Context) -> int:
        """An estimate from about twenty numbers, each larger than the one before by the same ratio."""
        import numpy as np

        from mapsto.nn.semi.clusters import estimated_count

        most = max(2, min(self.most, len(known) - 1))
        candidates = sorted({round(each) for each in np.geomspace(2, most, 20).tolist()})
        count, found = estimated_count(known, candidates, ctx.random("count"))
        best = sorted(found, key=lambda each: -found[each])[:4]
        ctx.note(
            f"there seem to be {count} groups: mean silhouettes "
            + ", ".join(f"{found[each]:.3f} with {each}" for each in best)
            + "; set groups where you know better"
        )
        return count


def _sizes(group: NDArray[np.int64], count: int) -> list[int]:
    import numpy as np

    return np.bincount(group, minlength=count).tolist()
