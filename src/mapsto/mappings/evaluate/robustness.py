"""How often a classifier is still right where an adversary moves its inputs by at most ε, and whether the attack can be believed.

``robust accuracy = mean_i min_{‖δ‖ ≤ ε} [argmax f(x_i + δ) = y_i]``, an upper bound of it by each attack: one step (FGSM), several (PGD-k:
Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", 2018), and APGD on cross-entropy, then on the ratio of
differences of scores (Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-Free Attacks",
2020).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Metric, Network, Report, Series, Table
from mapsto.mapping import DataSource, Mapping, NetworkSource
from mapsto.nn.robust.radius import Attacked, Radius, require_attackable

if TYPE_CHECKING:
    from torch import Tensor

    from mapsto.nn.robust.evaluation import Examined
    from mapsto.nn.robust.threat import Scores

__all__ = ["Robustness"]


class Robustness(Attacked, Mapping[Network, Report]):
    """Accuracy (%, with its interval) on clean samples and under each attack, ``worst`` under all of them, and a curve over ε.

    Only samples that are answered rightly are attacked. Attacks go through everything that the network does to its input, size and
    normalisation included; through quantizers gradients pass straight, which is said. What suggests masked gradients is a warning.
    """

    version: ClassVar[int] = 2
    data: DataSource
    """The labelled samples, one class each, never those it was trained on."""
    attacks: tuple[Literal["fgsm", "pgd", "apgd"], ...] = Field(default=("fgsm", "pgd", "apgd"), min_length=1)
    """Which attacks; APGD is the strongest, and costs 2 × `apgd_steps` passes."""
    steps: int = Field(default=10, ge=1)
    """Steps k of PGD."""
    step_size: Radius | None = None
    """Length of a step of PGD; by default ε / 4, which is 2/255 for an ε of 8/255."""
    restarts: int = Field(default=1, ge=1)
    """How often PGD begins anew from another random start; a sample counts as right where it is after each of them."""
    apgd_steps: int = Field(default=20, ge=2)
    """Steps of APGD on each of its two losses; 100 in the paper."""
    surrogate: NetworkSource | None = None
    """Another network of the same classes, such as the float one that a quantized one was made from: PGD's examples against it are given to
    this one too, and the metric is ``transfer``."""
    samples: int = Field(default=1000, ge=1)
    """How many samples, drawn without replacement; all where there are fewer."""
    curve: tuple[Radius, ...] | Literal["auto"] = "auto"
    """Values of ε of the curve, which is PGD's on the first `curve_samples`, beside one at which nothing can be right. `auto`: from ε / 4
    to 4 ε. Without values neither the curve nor checks of the attack are made."""
    curve_samples: int = Field(default=128, ge=1)
    """How many of the samples are attacked for the curve and the checks."""
    batch_size: int = Field(default=128, ge=1)
    """Samples of a forward and backward pass."""

    contract: ClassVar[dict[str, Any]] = {"attacks": ["pgd"], "steps": 2, "apgd_steps": 2, "curve": (), "samples": 16}

    def apply(self, value: Network, ctx: Context) -> Report:
        """Raises `DomainError` for a network that gives no scores of these classes or that takes token ids, `DataError` for images of
        values outside 0 to 1, NaN, or no sample.
        """
        self.require_epsilon(value.signature, where=self.name)
        surrogate = None if self.surrogate is None else ctx.network(self.surrogate)
        given = self._examined(value, surrogate, ctx)
        right = {"accuracy": given.clean()}
        for name in dict.fromkeys(self.attacks):
            right[name] = self._under(name, given, right["accuracy"])
        if surrogate is not None:
            right["transfer"] = self._transferred(surrogate, given, right["accuracy"], ctx)
        metrics = _metrics(right)
        rows = tuple(
            (name, self._passes(name), metric.value, metric.low, metric.high) for name, metric in metrics.items()
        )
        columns = ("attack", "steps", "accuracy", "low", "high")
        table = Table(columns=columns, rows=rows, units=dict.fromkeys(columns[2:], "%"))
        series = {"curve": self._curve(given.first(self.curve_samples), right, ctx)} if self.curve else {}
        return Report(metrics=metrics, tables={"attacks": table}, series=series)

    def _examined(self, value: Network, surrogate: Network | None, ctx: Context) -> Examined:
        import torch

        from mapsto.data.checks import require_alike, require_finite, require_labelled, require_some
        from mapsto.nn.robust.evaluation import Examined
        from mapsto.nn.robust.threat import Threat, raw

        where = f"{self.name}: data"
        others = [] if surrogate is None else [surrogate]
        require_attackable(value, where=self.name)
        samples = require_some(ctx.dataset(self.data, also=others), where=where)
        require_finite(samples.inputs, where=where)
        for field, network in ((self.name, value), *((f"{self.name}: surrogate", other) for other in others)):
            require_attackable(network, where=field)
            require_alike(network.signature.classes, samples.classes, where=field)
            outputs = network.signature.outputs[0].shape[-1]
            if outputs != len(samples.classes):
                raise DomainError(
                    f"the network has {outputs} outputs, the data {len(samples.classes)} classes",
                    where=field,
                    hint="give data with the network's classes",
                )
        samples = samples.take(ctx.random("samples").permutation(len(samples))[: self.samples])
        x, bounds = raw(samples.inputs, value.signature.preprocessing, where=where)
        return Examined(
            scores=self._scores(value, ctx, tell=True),
            x=x.to(ctx.device),
            labels=torch.as_tensor(require_labelled(samples, where=where)).to(ctx.device),
            threat=Threat(self.norm, self.epsilon, bounds),
            batch_size=self.batch_size,
        )

    def _scores(self, network: Network, ctx: Context, *, tell: bool = False) -> Scores:
        from mapsto.nn.edits.quantizers import has_quantized_part
        from mapsto.nn.network.inference import compact
        from mapsto.nn.robust.threat import scores_of

        module = compact(network.module(device=ctx.device)).requires_grad_(False)
        if tell and has_quantized_part(module):
            more = (
                "" if self.surrogate is not None else "; give `surrogate`, the float network, to attack by transfer too"
            )
            ctx.note(
                f"the network is quantized: attacks see its rounded values, and gradients pass straight through{more}"
            )
        return scores_of(module, network.signature.preprocessing)

    def _under(self, name: str, given: Examined, clean: Tensor) -> Tensor:
        if name == "fgsm":
            return given.fgsm(clean)
        if name == "apgd":
            return given.apgd(clean, self.apgd_steps)
        return given.pgd(clean, self.steps, self.step_size, restarts=self.restarts)

    def _transferred(self, surrogate: Network, given: Examined, clean: Tensor, ctx: Context) -> Tensor:
        """Which samples are right as PGD has moved them against the surrogate."""
        from mapsto.nn.robust.projected_gradient import projected_gradient

        fields: dict[str, Any] = {"threat": given.threat, "steps": self.steps, "step": self.step_size}
        return given.under(clean, partial(projected_gradient, self._scores(surrogate, ctx), **fields))

    def _passes(self, name: str) -> str:
        restarts = f"{self.restarts} × " if self.restarts > 1 else ""
        counts = {"fgsm": "1", "pgd": f"{restarts}{self.steps}", "apgd": f"2 × {self.apgd_steps}"}
        return counts.get(name, f"{self.steps}" if name == "transfer" else "")

    def _curve(self, few: Examined, right: dict[str, Tensor], ctx: Context) -> Series:
        """Robust accuracy over ε; warns of what shows that attacks are too weak."""
        from mapsto.nn.robust.evaluation import doubts, radii

        clean = few.clean()
        widest = radii(self.epsilon, few.threat, few.x)
        chosen = widest if self.curve == "auto" else tuple(sorted({*self.curve, widest[-1]}))
        shares = [float(clean.double().mean())]
        shares += [float(few.at(epsilon).pgd(clean, self.steps).double().mean()) for epsilon in chosen]
        found = doubts(few, clean, right, steps=self.steps, widest=chosen[-1], share=shares[-1])
        if found:
            ctx.warn(
                f"robust accuracy is not to be believed, gradients seem masked: {'; '.join(found)}. "
                "Attack by `surrogate` too, take more steps and restarts, and look at apgd"
            )
        accuracies = tuple(100 * share for share in shares)
        return Series(x=(0.0, *chosen), ys={f"PGD-{self.steps}": accuracies}, x_name="epsilon", y_name="right, %")


def _metrics(right: dict[str, Tensor]) -> dict[str, Metric]:
    import torch

    from mapsto.nn.evaluate.classification import share

    named = right | {"worst": torch.stack(list(right.values())).all(0)}
    return {name: share(int(each.sum()), len(each)) for name, each in named.items()}
