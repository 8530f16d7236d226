"""Tasks from images without labels: a few random images stand for as many classes, their augmented copies for more of each.

N images drawn at random from C classes of m images each are of N classes with probability
``C! · m^N · (C·m − N)! / ((C − N)! · (C·m)!)``, near 1 where classes are many (Khodadadeh, Bölöni and Shah, "Unsupervised Meta-Learning for
Few-Shot Image Classification", 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mapsto.data.augment import Augmentation, Augmentations, refuse_mixing
from mapsto.data.augment.affine import Affine
from mapsto.kinds import Episode, Episodes, Samples, Tasks
from mapsto.mapping import DataSource

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Umtra"]


class Umtra(Tasks):
    """Tasks over a data set whose labels are never read.

    >>> from mapsto.data.sets.digits import Digits
    >>> task = Umtra(data=Digits(), ways=3, queries=2).open()[0]
    >>> task.support.shape, task.query_labels.tolist()
    ((3, 1, 28, 28), [0, 0, 1, 1, 2, 2])
    """

    version: ClassVar[int] = 2

    data: DataSource
    """What to draw from; any labels will do."""
    ways: int = Field(default=5, ge=2)
    """Images of a task, each a class of its own."""
    shots: int = Field(default=1, ge=1)
    """Support samples of each: the image itself, then augmented copies."""
    queries: int = Field(default=1, ge=1)
    """Query samples of each: augmented copies; one in the paper."""
    augment: Augmentations = (Affine(translate=0.1, degrees=20, scale=0.2, shear=0.2),)
    """How copies differ. The paper shifts characters by up to 6 of 28 pixels; these fit
    characters that are centred already."""
    drop: float = Field(default=0.0, ge=0, lt=1)
    """Share of the pixels of a copy that are blanked: the paper does so on Omniglot; on glyphs it did not help."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides every task."""

    def __post_init__(self) -> None:
        refuse_mixing(self.augment, "each copy is of one image", where="umtra", by_class=True)

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self)

    def open(self) -> Episodes:
        """Raises `DataError` where there are fewer samples than ways."""
        from mapsto.data.io.fingerprint import dataset_of

        return episodes(
            dataset_of(self.data, where="umtra.data").open(),
            ways=self.ways,
            shots=self.shots,
            queries=self.queries,
            augment=self.augment,
            drop=self.drop,
            seed=self.seed,
        )


def episodes(
    samples: Samples, *, ways: int, shots: int, queries: int, augment: Sequence[Augmentation], drop: float, seed: int
) -> Episodes:
    """The tasks over samples that are open already.

    Raises `DataError` where there are fewer samples than ways, `DomainError` where an augmentation is for other samples.
    """
    from mapsto.data.augment._apply import require_fitting
    from mapsto.data.tasks.generated import MadeEpisodes
    from mapsto.errors import DataError

    if len(samples) < ways:
        raise DataError(
            f"{ways} ways need as many samples, there are {len(samples)}",
            where="umtra.data",
            hint="lower ways, or give it more data",
        )
    require_fitting(augment, samples, where="umtra.augment")
    make = partial(_task, samples, ways, shots, queries, augment, drop)
    return MadeEpisodes(make, ways=ways, shots=shots, queries=queries, seed=seed)


def _task(
    samples: Samples,
    ways: int,
    shots: int,
    queries: int,
    augment: Sequence[Augmentation],
    drop: float,
    random: np.random.Generator,
) -> Episode:
    import numpy as np

    from mapsto.data.tasks.generated import made_episode
    from mapsto.data.tasks.variants import variants

    chosen = random.choice(len(samples), ways, replace=False)
    copies = variants(samples, np.repeat(chosen, shots - 1 + queries), augment, drop, random)
    apart = copies.reshape(ways, -1, *copies.shape[1:])
    whole = np.concatenate([samples.inputs[chosen][:, None], apart], axis=1)
    return made_episode(whole, shots, samples.preprocessing)
