"""Learn to learn from images without labels: a few random ones stand for as many classes, augmented copies for more of each.

``support = {(x_i, i)}``, ``query = {(A(x_i), i)}`` for N images x_i drawn at random and an augmentation A; then as MAML does (Khodadadeh,
Bölöni and Shah, "Unsupervised Meta-Learning for Few-Shot Image Classification", 2019).
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.data.augment import Augmentations, refuse_mixing
from mapsto.data.augment.affine import Affine
from mapsto.kinds import Episodes
from mapsto.mapping import TasksSource
from mapsto.mappings.meta._unlabelled import Form, Unlabelled

__all__ = ["Umtra"]


class Umtra(Unlabelled):
    """A learner from data whose labels are never read; the tasks alone are the data set `umtra`.

    >>> from mapsto import datasets, evaluate, networks
    >>> digits = datasets.digits(size=16)
    >>> network = networks.conv4(data=digits, width=8, blocks=3)(seed=0)
    >>> tasks = datasets.episodes(data=digits, ways=5, shots=1, queries=3)
    >>> learner = Umtra(tasks=tasks, by="protonet", steps=40, learning_rate=0.005)(network)
    >>> new = evaluate.episodes(tasks=datasets.episodes(data=digits, seed=1), episodes=50, baseline=network)
    >>> bool(new(learner).metrics["drop"].value < 0)
    True
    """

    contract: ClassVar[dict[str, Any]] = {"engine": "loop", "inner_steps": 2}

    tasks: TasksSource
    """The data and the form of the tasks, as in `episodes`: its labels are not read. The paper has 1 shot and 1 query. Tasks
    of the kinds `umtra` and `clustered` are taken as they are."""
    copies: Augmentations = (Affine(translate=0.1, degrees=20, scale=0.2, shear=0.2),)
    """A: how copies differ from their image. The paper shifts characters by up to 6 of 28 pixels; these fit
    characters that are centred already."""
    drop: float = Field(default=0.0, ge=0, lt=1)
    """Share of the pixels of a copy that are blanked: the paper does so on Omniglot; on glyphs it did not help."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_mixing(self.copies, "each copy is of one image", where=self.name, field="copies", by_class=True)

    def own_tasks(self, form: Form, ctx: Context) -> Episodes:
        from mapsto.data.sets.umtra import episodes

        return episodes(
            form.samples,
            ways=form.ways,
            shots=form.shots,
            queries=form.queries,
            augment=self.copies,
            drop=self.drop,
            seed=form.seed,
        )
