"""Whether attributions point at what a network's answers rest on: parts are taken away, and brought back, from the highest score down.

``insertion = ∫₀¹ p(highest share t alone) dt``, high is good; ``deletion = ∫₀¹ p(all but the highest share t) dt``, low is good (Petsiuk,
Das and Saenko, "RISE", 2018). Each is compared with random orders of the same samples: a gain whose interval holds 0 says that the method
tells nothing of this network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Metric, Network, Report, Samples, Series, Table
from mapsto.mapping import DataSource, Mapping

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.nn.explain.attributions import Attributor
    from mapsto.nn.explain.curves import Curves
    from mapsto_runtime.parts import Parts

__all__ = ["Attributions"]

_Method = Literal["occlusion", "integrated_gradients", "gradient_x_input", "saliency", "smooth_grad"]


class Attributions(Mapping[Network, Report]):
    """Of each method ``METHOD_insertion`` and ``METHOD_deletion``, 0 to 1, and how much better than random orders, with intervals.

    Explained is the answer, right or wrong. The series have the mean curves; pictures show the first images with their scores. What cannot
    take gradients, as a quantized network, is scored by occlusion alone, which is said.
    """

    data: DataSource
    """The samples that are explained, never mind their labels."""
    methods: tuple[_Method, ...] = Field(default=("occlusion", "integrated_gradients"), min_length=1)
    """What is judged; all but `occlusion` take gradients (extra `explain`)."""
    samples: int = Field(default=50, ge=2)
    """How many samples are drawn; of fewer all are taken."""
    hidden: Literal["blurred", "mean", "black"] = "blurred"
    """What stands where a part of an image is taken away; methods hide by the image's mean colour, so that `mean` would favour them."""
    points: int = Field(default=11, ge=3, le=101)
    """Points of a curve."""
    orders: int = Field(default=3, ge=1, le=100)
    """Random orders of each sample."""
    steps: int = Field(default=32, ge=2, le=1000)
    """Points of the path that integrated gradients take."""
    pictures: int = Field(default=4, ge=0, le=50)
    """Images that are shown with their scores, for each method."""

    contract: ClassVar[dict[str, Any]] = {
        "data": {"subset": {"data": {"digits": {"size": 8}}, "per_class": 1}},
        "methods": ["occlusion"],
        "samples": 2,
        "points": 3,
        "orders": 1,
        "pictures": 1,
    }

    def __post_init__(self) -> None:
        if len(set(self.methods)) < len(self.methods):
            raise SpecError("a method is named twice", where=f"{self.name}.methods", hint="name each once")

    def apply(self, value: Network, ctx: Context) -> Report:
        """Raises `DomainError` where the answers are no classes or labels, `DataError` for NaN or fewer than two samples."""
        import numpy as np

        from mapsto.nn.explain.curves import area, shares

        self._require_answers(value)
        samples = self._drawn(ctx)
        self._require_no_embedding(value, samples)
        methods = self._attributors(value, ctx)
        kept: dict[str, list[Curves]] = {name: [] for name in (*methods, "random")}
        pictures: dict[str, bytes] = {}
        rng = ctx.random("orders")
        numbers = ctx.track(range(len(samples)), total=len(samples), what="explained")
        for number in numbers:
            self._judge(number, samples, value, methods, kept, pictures, rng)
        areas = {
            name: {kind: np.array([area(getattr(each, kind)) for each in found]) for kind in ("insertion", "deletion")}
            for name, found in kept.items()
        }
        areas["random"] = {kind: each.reshape(len(samples), -1).mean(1) for kind, each in areas["random"].items()}
        x = tuple(shares(self.points).tolist())
        series = {
            kind: Series(
                x=x,
                ys={
                    name: tuple(np.mean([getattr(each, kind) for each in found], 0).tolist())
                    for name, found in kept.items()
                },
                x_name=f"share of the parts {what}",
                y_name="probability of the answer",
            )
            for kind, what in (("deletion", "taken away"), ("insertion", "brought back"))
        }
        return Report(**_figures(areas), series=series, pictures=pictures)

    def _require_answers(self, value: Network) -> None:
        signature = value.signature
        if signature.is_dense or signature.answers not in ("classes", "labels") or value.adaptation is not None:
            raise DomainError(
                "its answers are no classes or labels, which have a probability that could fall",
                where=self.name,
                hint="adapt it first (adapt.centroid, adapt.linear), or explain its values one by one, by its package",
            )

    def _require_no_embedding(self, value: Network, samples: Samples) -> None:
        """Raises `DomainError` for numbers without names that are not as many as the data's classes, such as an embedding."""
        signature = value.signature
        outputs, classes = signature.outputs[0].shape[-1], len(samples.classes)
        if signature.answers == "classes" and signature.classes is None and classes not in (0, outputs):
            raise DomainError(
                f"the network gives {outputs} numbers without names, and the data have {classes} classes: they are no scores of these",
                where=self.name,
                hint="give it a head first (adapt.centroid, adapt.linear)",
            )

    def _drawn(self, ctx: Context) -> Samples:
        from mapsto.data.checks import require_finite
        from mapsto.nn.train.calibration_batches import chosen

        samples = ctx.dataset(self.data)
        require_finite(samples.inputs, where=f"{self.name}: data")
        if len(samples) < 2:
            raise DataError("fewer than two samples have no interval", where=self.name, hint="give more samples")
        return samples.take(chosen(samples, self.samples, ctx, stream="samples"))

    def _attributors(self, value: Network, ctx: Context) -> dict[str, Attributor]:
        """The methods that the network allows; a note on each that it does not."""
        from mapsto.nn.explain.attributions import Attributor

        found: dict[str, Attributor] = {}
        for method in self.methods:
            try:
                found[method] = Attributor(value, method, steps=self.steps, device=ctx.device)
            except DomainError as error:
                ctx.warn(f"{method} is left out, and occlusion judged: {error.what}")
                found.setdefault("occlusion", Attributor(value, "occlusion", device=ctx.device))
        return found

    def _judge(
        self,
        number: int,
        samples: Samples,
        value: Network,
        methods: dict[str, Attributor],
        kept: dict[str, list[Curves]],
        pictures: dict[str, bytes],
        rng: np.random.Generator,
    ) -> None:
        """Adds the curves and pictures of one sample."""
        import numpy as np

        from mapsto.nn.explain.curves import curves
        from mapsto.nn.train.calibration_batches import as_inputs
        from mapsto_runtime.parts import parts_of

        sample = as_inputs(value, samples.inputs[number : number + 1], where=self.name).numpy()
        judged = parts_of(sample[0], value.signature, baseline=self.hidden)
        explained = parts_of(sample[0], value.signature)
        first = next(iter(methods.values()))
        place = int(first.outputs(sample)[0].argmax())

        def probability(inputs: NDArray[Any]) -> NDArray[np.float64]:
            return 1 / (1 + np.exp(-first.score(inputs, place)))

        for name, attributor in methods.items():
            scores, pixels = attributor(sample, explained, place)
            order = np.argsort(-scores, kind="stable")
            kept[name].append(curves(judged, order, probability, points=self.points))
            if number < self.pictures and (picture := _picture(explained, scores, pixels)):
                label = (value.signature.classes or ())[place] if value.signature.classes else str(place)
                pictures[f"{name}_{number + 1}_for_{label}"] = picture
        kept["random"] += [
            curves(judged, rng.permutation(len(judged.names)), probability, points=self.points)
            for _ in range(self.orders)
        ]


def _picture(parts: Parts, scores: NDArray[Any], pixels: NDArray[Any] | None) -> bytes | None:
    from mapsto_runtime.heat_map import overlay, png
    from mapsto_runtime.parts import Cells

    if not isinstance(parts, Cells):
        return None
    return png(overlay(parts.picture, scores.reshape(parts.grid) if pixels is None else pixels))


def _figures(areas: dict[str, dict[str, NDArray[np.float64]]]) -> dict[str, Any]:
    """Metrics and table of the areas of each method, of which ``random`` is the mean over its orders."""
    metrics: dict[str, Metric] = {}
    rows: list[tuple[Any, ...]] = []
    columns = (
        "method",
        "insertion",
        "deletion",
        "insertion gain",
        "insertion gain ci95",
        "deletion gain",
        "deletion gain ci95",
    )
    usual = areas["random"]
    for name, own in areas.items():
        for kind in ("insertion", "deletion"):
            metrics[f"{name}_{kind}"] = _mean(own[kind])
        if name == "random":
            rows.append((name, *(metrics[f"{name}_{kind}"].value for kind in ("insertion", "deletion")), *[None] * 4))
            continue
        gains = (own["insertion"] - usual["insertion"], usual["deletion"] - own["deletion"])
        for kind, gain in zip(("insertion", "deletion"), gains, strict=True):
            metrics[f"{name}_{kind}_gain"] = _mean(gain)
        told = [metrics[f"{name}_{kind}"] for kind in ("insertion", "deletion", "insertion_gain", "deletion_gain")]
        rows.append((name, told[0].value, told[1].value, told[2].value, told[2].ci95, told[3].value, told[3].ci95))
    return {"metrics": metrics, "tables": {"attributions": Table(columns=columns, rows=tuple(rows))}}


def _mean(values: NDArray[np.float64]) -> Metric:
    """With the half-width of its 95 % interval by the normal distribution."""
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5
    return Metric(value=float(values.mean()), ci95=half, n=len(values))
