"""Teach to tell, from the student's embedding, which of the teacher's embeddings is of the same sample: what both know of it grows.

``−log h(f_s, f_t) − Σ_k log(1 − h(f_s, f_tk))`` with ``h = e^(⟨g_s, g_t⟩/τ) / (e^(⟨g_s, g_t⟩/τ) + K Z / N)``, g linear maps to a sphere,
and K samples of other classes out of a memory of all N; and the same with the parts exchanged (Tian, Krishnan and Isola,
"Contrastive Representation Distillation", 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mapsto.nn.distill.feature_based import FeatureDistillation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mapsto.nn.distill.loop import LossInputs, ProjectorInputs
    from mapsto.nn.network.features import Pair

__all__ = ["Contrastive"]


class Contrastive(FeatureDistillation):
    """The student trained so that its embedding of a sample is told by that of `teacher` from other samples'.

    The negatives are drawn once for a batch, which makes them a matrix product; those of an image's own class do not count.

    >>> from mapsto import datasets, networks, train
    >>> from mapsto.context import Context
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> teacher, student = (networks.conv4(data=digits, width=width, blocks=2, classes="data")(seed=0) for width in (12, 4))
    >>> teacher = train.supervised(data=digits, epochs=6, batch_size=50)(teacher)
    >>> ctx, process = Context(), Contrastive(data=digits, teacher=teacher, labels=0, epochs=6, batch_size=50)
    >>> live, items = process.open(student, None, ctx), process.items(student, ctx)
    >>> losses = [live.advance(items[step])[0][1]["train_loss"] for step in range(live.total)]
    >>> losses[-1] < 0.95 * losses[0]
    True
    """

    needs_whole_labels: ClassVar[str] = "its memory holds the embedding of each sample of the data by itself"

    weight: float = Field(default=0.8, ge=0)
    """Weight of the contrast; 0.8 in the paper."""
    negatives: int = Field(default=4096, ge=1)
    """K, samples drawn from the memory each step, at most all; 16384 for each image in the paper."""
    size: int = Field(default=128, ge=1)
    """Numbers of a projection; 128 in the paper. The memory takes 8 bytes of each for each sample."""
    contrast_temperature: float = Field(default=0.07, gt=0)
    """τ; 0.07 in the authors' code."""
    momentum_memory: float = Field(default=0.5, ge=0, lt=1)
    """How much of the memory of a sample stays when it is seen again; 0.5 in the authors' code."""

    def default_pairs(self, students: nn.Module, teachers: nn.Module, examples: tuple[Tensor, Tensor]) -> list[Pair]:
        from mapsto.nn.network.features import EMBEDDING

        return [(EMBEDDING, EMBEDDING)]

    def chosen(self, pairs: list[Pair]) -> list[Pair]:
        return pairs[-1:]

    def projectors(self, inputs: ProjectorInputs) -> nn.Module:
        import torch

        from mapsto.nn.distill.projectors import ContrastMemory

        sizes = [layers[-1].flatten(1).shape[1] for layers in (inputs.ours, inputs.theirs)]
        return ContrastMemory(sizes[0], sizes[1], self.size, torch.as_tensor(inputs.samples.labels))

    def layers_loss(self, given: LossInputs) -> Tensor:
        from typing import cast

        import torch

        from mapsto.nn.distill.losses import contrast
        from mapsto.nn.distill.projectors import ContrastMemory

        memory = cast("ContrastMemory", given.projectors)
        ours, theirs = given.ours[0], given.theirs[0]
        others = torch.randperm(len(memory.labels))[: self.negatives].to(ours.device)
        allowed = memory.labels[others] != given.labels[:, None]
        total = ours.new_zeros(())
        for anchors, number in ((ours, 1), (theirs, 0)):
            positive, negative = memory.ratios(anchors, number, given.places, others, self.contrast_temperature)
            total = total + contrast(positive, negative, allowed, samples=len(memory.labels))
        memory.remember(ours.detach(), theirs.detach(), given.places, self.momentum_memory)
        return total
