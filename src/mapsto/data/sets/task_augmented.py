"""Few-shot tasks that are more than the data holds: turned images as new classes, inverted ink, classes mixed from two.

More classes and kinds of task keep a learner from knowing the training tasks by heart (Rajendran, Irpan and Jang, "Meta-Learning Requires
Meta-Augmentation", 2020; Ni et al., "Data Augmentation for Meta-Learning", 2021). A mixed class blends images of two by one share:
``x = λ a + (1 − λ) b``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.data.augment import Augmentations, refuse_mixing
from mapsto.kinds import Episode, Episodes, Samples, Tasks
from mapsto.mapping import DataSource

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["TaskAugmented"]

_LISTS = ("augment", "augment_class", "augment_task")


class TaskAugmented(Tasks):
    """N-way K-shot tasks over a data set, made new by what is done to all images of a class or of a task.

    >>> from mapsto.data.sets.digits import Digits
    >>> task = TaskAugmented(data=Digits(), ways=20, queries=2).open()[0]
    >>> task.support.shape, max(task.classes) >= 10
    ((20, 1, 28, 28), True)
    """

    version: ClassVar[int] = 2

    data: DataSource
    """What to draw from: one class for each sample."""
    ways: int = Field(default=5, ge=2)
    """Classes of a task."""
    shots: int = Field(default=1, ge=1)
    """Support samples of each class."""
    queries: int = Field(default=15, ge=1)
    """Query samples of each class."""
    turns: Literal[1, 2, 4] = 4
    """1 for none, 2 for half turns, 4 for quarter turns: a turned class is a new one, as usual on Omniglot. Square images."""
    distinct: bool = False
    """No two classes of a task are turns of one class (as Finn, Abbeel and Levine, 2017, draw tasks of Omniglot)."""
    inverted: float = Field(default=0.0, ge=0, le=1)
    """Share of tasks whose images are all inverted, bright to dark."""
    mixed: float = Field(default=0.0, ge=0, le=1)
    """Share of a task's classes that are a blend of two, with a λ of their own from 0.3 to 0.7."""
    augment: Augmentations = ()
    """What is done to each image on its own, in order, support and queries alike; nothing by default."""
    augment_class: Augmentations = ()
    """What is done to all images of a class alike, drawn anew for each class of a task: another class, as by `turns`."""
    augment_task: Augmentations = ()
    """What is done to all images of a task alike, drawn anew for each task: another domain, as by `inverted`."""
    drop: float = Field(default=0.0, ge=0, lt=1)
    """Share of the pixels of each image that are blanked."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides every task."""

    def __post_init__(self) -> None:
        why = "each image is of one class of its task"
        for name in _LISTS:
            refuse_mixing(getattr(self, name), why, where="task_augmented", field=name, by_class=True)

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self)

    def open(self) -> Episodes:
        """Raises `DataError` where there are too few classes or samples of one, or what is asked for needs images."""
        import numpy as np

        from mapsto.data.augment._apply import require_fitting
        from mapsto.data.checks import require_labelled, require_some
        from mapsto.data.io.fingerprint import dataset_of
        from mapsto.data.tasks.generated import MadeEpisodes
        from mapsto.data.tasks.variants import require_images
        from mapsto.errors import DataError

        where = "task_augmented"
        samples = require_some(dataset_of(self.data, where=f"{where}.data").open(), where=where)
        labels = require_labelled(samples, where=where)
        for name in _LISTS:
            require_fitting(getattr(self, name), samples, where=f"{where}.{name}")
        if self.turns > 1:
            require_images(samples, where=f"{where}.turns", what="turning")
        numbers, counts = np.unique(labels, return_counts=True)
        pools = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
        large = [(int(number), pool) for number, pool in zip(numbers, pools, strict=True) if len(pool) >= self._each]
        if len(large) * (1 if self.distinct else self.turns) < self.ways:
            raise DataError(
                f"{self.ways} ways need as many classes of {self._each} samples, there are {len(large)} "
                + ("of which no task has two turns" if self.distinct else f"in {self.turns} turns"),
                where=where,
                hint="lower ways, shots or queries, or give it more data",
            )
        make = partial(self._task, samples, large)
        return MadeEpisodes(make, ways=self.ways, shots=self.shots, queries=self.queries, seed=self.seed)

    @property
    def _each(self) -> int:
        return self.shots + self.queries

    def _task(
        self, samples: Samples, pools: list[tuple[int, NDArray[np.int64]]], random: np.random.Generator
    ) -> Episode:
        import numpy as np

        from mapsto.data.tasks.generated import made_episode
        from mapsto.data.tasks.variants import changed_alike

        if self.distinct:
            turned = len(pools) * random.integers(self.turns, size=self.ways)
            chosen = (random.choice(len(pools), self.ways, replace=False) + turned).tolist()
        else:
            chosen = random.choice(len(pools) * self.turns, self.ways, replace=False).tolist()
        images = np.stack([self._images(samples, pools[kind % len(pools)][1], random) for kind in chosen])
        for way in np.flatnonzero(random.random(self.ways) < self.mixed).tolist():
            other = self._images(samples, pools[int(random.integers(len(pools)))][1], random)
            share = random.uniform(0.3, 0.7)
            blend = share * images[way].astype(np.float32) + (1 - share) * other
            images[way] = blend.round() if images.dtype == np.uint8 else blend
        if self.turns > 1:
            for way, kind in enumerate(chosen):
                quarters = kind // len(pools) * (4 // self.turns)
                images[way] = np.rot90(images[way], quarters, axes=(-2, -1))
        if random.random() < self.inverted:
            images = 255 - images if images.dtype == np.uint8 else -images
        if self.augment_class:
            images = np.stack([changed_alike(samples, each, self.augment_class, random) for each in images])
        if self.augment_task:
            together = images.reshape(-1, *images.shape[2:])
            images = changed_alike(samples, together, self.augment_task, random).reshape(images.shape)
        classes = [pools[kind % len(pools)][0] + kind // len(pools) * len(samples.classes) for kind in chosen]
        return made_episode(images, self.shots, samples.preprocessing, classes)

    def _images(self, samples: Samples, pool: NDArray[np.int64], random: np.random.Generator) -> NDArray[Any]:
        """Samples of a class (shots + queries, ...)."""
        from mapsto.data.tasks.variants import variants

        picked = random.choice(pool, self._each, replace=False)
        if not self.augment and not self.drop:
            return samples.inputs[picked]
        return variants(samples, picked, self.augment, self.drop, random)
