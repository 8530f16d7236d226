"""How far a student is from its teacher: in its answers, and layer by layer in how alike it finds the samples.

Answers by Kullback–Leibler and Jensen–Shannon divergence, squared distance, cosine, correlation and agreement; layers by
``CKA(i, j) = HSIC(K_i, L_j) / √(HSIC(K_i, K_i) HSIC(L_j, L_j))`` of the products K and L of all pairs of samples, unbiased, averaged over
batches (Kornblith et al., "Similarity of Neural Network Representations Revisited", 2019; Nguyen et al., "Do Wide and Deep
Networks Learn the Same Things?", 2021). CKA is 1 for layers equal up to rotation and scale, about 0 for unrelated ones.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Metric, Network, Report, Table
from mapsto.mapping import DataSource, Mapping, NetworkSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

__all__ = ["Difference"]


class Difference(Mapping[Network, Report]):
    """Metrics of the answers, the CKA of matched layers, and a table (a heat map in the page) of all layers against all.

    Raises `DomainError` where the networks have unlike outputs, or a layer is not there.

    >>> from mapsto import datasets, networks
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> one, other = (networks.conv4(data=digits, width=4, blocks=2, classes="data")(seed=seed) for seed in (0, 1))
    >>> for row in Difference(teacher=one, data=digits)(one).tables["cka"].rows:
    ...     print(row[0], [round(cell, 2) for cell in row[1:]])
    features.0.2 [1.0, 0.78, 0.6]
    features.1.2 [0.78, 1.0, 0.75]
    embedding [0.6, 0.75, 1.0]
    >>> Difference(teacher=one, data=digits)(other).metrics["cka.embedding"].value < 0.95
    True
    """

    teacher: NetworkSource
    """The network to compare with."""
    data: DataSource
    """Samples, best such as neither was trained on; labels are not used."""
    samples: int = Field(default=1024, ge=4)
    """How many samples, drawn without replacement; all where there are fewer."""
    batch_size: int = Field(default=256, ge=4)
    """Samples of a batch, within which they are compared pair by pair."""
    layers: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Layers of the student by module path, `embedding` for what the head is given; by default the last of each resolution, and the
    embedding, unless it is the last of those laid flat."""
    teacher_layers: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Layers of the teacher; by default as for the student."""
    temperature: float = Field(default=1.0, gt=0)
    """T that the answers are softened by; the divergences are multiplied by T²."""

    def apply(self, value: Network, ctx: Context) -> Report:
        import torch

        from mapsto.nn.distill.divergences import hsic

        teacher = ctx.network(self.teacher)
        _require_alike(value, teacher)
        networks = value, teacher
        modules = [network.module().to(ctx.device) for network in networks]
        paths = [
            _layers(module, network, wanted, owner=owner)
            for module, network, wanted, owner in zip(
                modules, networks, (self.layers, self.teacher_layers), ("student", "teacher"), strict=True
            )
        ]
        answers: tuple[list[Tensor], list[Tensor]] = ([], [])
        sums: dict[str, Any] = {"cross": 0.0, "ours": 0.0, "theirs": 0.0}
        for raw in self._batches(teacher, ctx):
            grams: list[Tensor] = []
            for module, network, wanted, outputs in zip(modules, networks, paths, answers, strict=True):
                scores, products = _products(module, network, raw, wanted, ctx)
                outputs.append(scores)
                grams.append(products)
            sums["cross"] += hsic(grams[0], grams[1])
            sums["ours"] += hsic(grams[0], grams[0]).diagonal()
            sums["theirs"] += hsic(grams[1], grams[1]).diagonal()
        scale = (sums["ours"][:, None] * sums["theirs"][None]).clamp_min(torch.finfo(torch.float64).tiny).sqrt()
        matrix: list[list[float]] = (sums["cross"] / scale).tolist()
        return self._report(torch.cat(answers[0]), torch.cat(answers[1]), matrix, paths)

    def _batches(self, teacher: Network, ctx: Context) -> list[Any]:
        """Raw samples, batch by batch; a last one of fewer than four is left out."""
        from mapsto.data.checks import require_finite, require_some

        samples = require_some(ctx.dataset(self.data, also=[teacher]), where="evaluate.difference")
        require_finite(samples.inputs, where="evaluate.difference: data")
        chosen = ctx.random("samples").permutation(len(samples))[: self.samples]
        parts = [chosen[start : start + self.batch_size] for start in range(0, len(chosen), self.batch_size)]
        found = [samples.inputs[part] for part in parts if len(part) >= 4]
        if not found:
            raise DomainError(
                f"{len(samples)} samples are too few", where="evaluate.difference: data", hint="give at least 4"
            )
        return found

    def _report(
        self, ours: Tensor, theirs: Tensor, matrix: list[list[float]], paths: Sequence[Sequence[str]]
    ) -> Report:
        from mapsto.nn.distill.divergences import DIFFERENCES

        n = len(ours)
        whole = tuple(each.flatten(1) for each in (ours, theirs))
        scores = tuple(
            each.movedim(1, -1).flatten(0, -2) for each in (ours, theirs)
        )  # of a dense output: pixel by pixel
        metrics = {
            name: Metric(
                value=float(
                    DIFFERENCES[name](
                        *(scores if name in ("kl", "js", "correlation") else whole), temperature=self.temperature
                    )
                ),
                n=n,
            )
            for name in ("kl", "js", "euclidean", "cosine", "correlation")
        }
        if ours.ndim == 2 or ours.shape[1] > 1:
            agreement = (scores[0].argmax(1) == scores[1].argmax(1)).double().mean()
            metrics["agreement"] = Metric(value=float(agreement) * 100, unit="%", n=n)
        for row, own in enumerate(paths[0]):
            for column, other in enumerate(paths[1]):
                if own == other or (len(paths[0]) == len(paths[1]) and row == column):
                    metrics[f"cka.{own}" if own == other else f"cka.{own}-{other}"] = Metric(
                        value=matrix[row][column], n=n
                    )
        rows = tuple((own, *(round(cell, 6) for cell in row)) for own, row in zip(paths[0], matrix, strict=True))
        return Report(metrics=metrics, tables={"cka": Table(columns=("student \\ teacher", *paths[1]), rows=rows)})


def _require_alike(value: Network, teacher: Network) -> None:
    ours, theirs = (network.signature.outputs[0].shape[1:] for network in (value, teacher))
    if ours != theirs:
        raise DomainError(
            f"the network answers {ours}, the teacher {theirs}",
            where="evaluate.difference: teacher",
            hint="compare networks of the same classes",
        )


def _layers(module: nn.Module, network: Network, wanted: Sequence[str] | None, *, owner: str) -> list[str]:
    from mapsto.nn.network.examples import example_batch
    from mapsto.nn.network.features import EMBEDDING, last_of_each_resolution, output_shapes, require_layers

    example = example_batch(network).to(next(iter(module.parameters())).device)
    shapes = output_shapes(module, example)
    if wanted is None:
        maps = last_of_each_resolution(shapes, tuple(example.shape[2:])) if example.ndim == 4 else {}
        found = list(maps.values())
        flattened = bool(found) and math.prod(shapes[found[-1]][1:]) == shapes[EMBEDDING][-1]
        return [*(found[:-1] if flattened else found), EMBEDDING]
    field = "layers" if owner == "student" else "teacher_layers"
    require_layers(wanted, shapes, owner=owner, where=f"evaluate.difference: {field}")
    return list(wanted)


def _products(
    module: nn.Module, network: Network, raw: Any, paths: Sequence[str], ctx: Context
) -> tuple[Tensor, Tensor]:
    """Scores (N, C), and products of all pairs of samples in each of L layers, shape (L, N, N), in double precision."""
    import torch

    from mapsto.nn.network.features import capturing
    from mapsto.nn.network.preprocess import prepare

    batch = prepare(raw, network.signature.preprocessing, device=ctx.device)
    with torch.no_grad(), capturing(module, paths) as seen:
        scores: Tensor = module(batch)
    layers = [seen[path].flatten(1).double() for path in paths]
    centred = [layer - layer.mean(0) for layer in layers]
    return scores.double().cpu(), torch.stack([layer @ layer.T for layer in centred]).cpu()
