"""``mapsto predict --explain``: what speaks for each answer, on the screen, as JSON, and as a page with pictures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mapsto.cli.app import print_note
from mapsto.errors import DataError, DomainError, StoreError, TrustError
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    from mapsto.cli.explained_network import Example, Examples
    from mapsto.nn.explain.attributions import Method
    from mapsto.report.explanations import SupportView
    from mapsto_runtime.explanation import Explanation, Way
    from mapsto_runtime.predictor import Predictor
    from mapsto_runtime.preprocessing import Input

__all__ = ["PAGE", "Explaining", "Supported"]

PAGE = "explanations.html"


class Supported(NamedTuple):
    """Which examples an answer rests on."""

    answer: str
    against: str
    """The next class."""
    lead: float
    rest: float
    """The part of the lead that is no example's."""
    how: str
    examples: list[Example]

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        numbers = {name: float(f"{value:.4g}") for name, value in (("lead", self.lead), ("rest", self.rest))}
        return {
            "answer": self.answer,
            "against": self.against,
            **numbers,
            "how": self.how,
            "examples": [each.plain() for each in self.examples],
        }

    def lines(self) -> Iterator[str]:
        """For the screen."""
        yield (
            f"    examples that put {short(self.answer, 40)} ahead of {short(self.against, 40)} by {self.lead:.3g} "
            f"(by {self.how}; {self.rest:+.3g} is no example's)"
        )
        width = max((len(short(each.name, 60)) for each in self.examples), default=0)
        for each in self.examples:
            yield f"      {short(each.name, 60):<{width}}  {short(each.label, 30)}  {each.part:+.3g}  likeness {each.likeness:.2f}"


@dataclass
class Explaining:
    """Explains answers of a package one input after another, and keeps what the page is made of.

    Raises `DomainError` where the package's answers have no score to explain, or it does not know the `target`.
    """

    predictor: Predictor
    place: Path
    """The folder that was given."""
    target: str | None = None
    out: Path | None = None
    by: Method = "occlusion"
    examples: bool | None = None
    """Whether the examples that answers rest on are named; None: where there are some."""
    _answers: list[tuple[str, str, Explanation, Supported | None]] = field(default_factory=list[Any])

    def __post_init__(self) -> None:
        from mapsto.cli.run import writable
        from mapsto_runtime.explanation import require_explainable

        require_explainable(self.predictor, self.target)
        if self.out is not None:
            writable(self.out)
        self._way, self._name = self._scorer()
        self._examples = self._kept_examples()

    def _scorer(self) -> tuple[Way | None, str]:
        """What scores parts, and its name; by occlusion, with a word on it, where there are no gradients."""
        if self.by == "occlusion":
            return None, "occlusion"
        from mapsto.cli.explained_network import behind
        from mapsto.nn.explain.attributions import Attributor

        try:
            return Attributor(behind(self.place).network, self.by), self.by
        except (DataError, DomainError, StoreError, TrustError) as error:
            print_note(f"occlusion is used instead of {self.by}: {error}")
            return None, "occlusion"

    def _kept_examples(self) -> Examples | None:
        from mapsto.cli.explained_network import Examples, behind, is_adapted

        if self.examples is False or (self.examples is None and not is_adapted(self.place)):
            return None
        try:
            return Examples(behind(self.place), where=str(self.place))
        except (DataError, DomainError, StoreError, TrustError) as error:
            if self.examples:
                raise
            print_note(f"the examples that answers rest on are not named: {error}")
            return None

    def of(self, given: Input) -> tuple[dict[int, Explanation], list[Any]]:
        """Place of each sample of an input → its explanation; and the errors of those that have none."""
        from mapsto_runtime.explanation import explained

        found = explained(self.predictor, [given], target=self.target, way=self._way, name=self._name)
        return {each.index: each for each in found.found}, [
            error for error in found.errors if isinstance(error, DomainError)
        ]

    def support(self, explanation: Explanation) -> Supported | None:
        """The examples that the answer rests on, where they are kept."""
        if self._examples is None:
            return None
        answer, against, lead, rest, examples = self._examples.of(explanation.sample)
        return Supported(answer, against, lead, rest, self._examples.said(), examples)

    def keep(self, title: str, said: str, explanation: Explanation, supported: Supported | None) -> None:
        """For the page."""
        if self.out is not None:
            self._answers.append((title, said, explanation, supported))

    def written(self) -> list[Path]:
        """The page and its pictures, once all is explained; nothing without a folder for them."""
        if self.out is None or not self._answers:
            return []
        from mapsto.report.explanations import Answer, picture_of, render
        from mapsto.store import write_atomically

        files: list[Path] = []
        taken: set[str] = set()
        for title, _, explanation, _ in self._answers:
            picture = picture_of(explanation)
            if picture is not None:
                files.append(self.out / _name_of(title, taken))
                write_atomically(files[-1], picture)
        answers = [
            Answer(title=title, said=said, explanation=found, support=_shown(supported))
            for title, said, found, supported in self._answers
        ]
        write_atomically(self.out / PAGE, render(answers).encode())
        return [self.out / PAGE, *files]


def _shown(supported: Supported | None) -> SupportView | None:
    from mapsto.report.explanations import SupportView

    if supported is None:
        return None
    (said, *_) = supported.lines()
    return SupportView(
        said=said.strip(),
        examples=[(each.name, each.label, each.part, each.likeness, each.picture) for each in supported.examples],
    )


def _name_of(title: str, taken: set[str]) -> str:
    """``FILE.png`` for what is called so; with a number where there is one of that name."""
    stem = Path(title.partition(",")[0]).stem if title != "-" else "input"
    name = next(
        name
        for number in itertools.count()
        if (name := f"{stem}_explained{f'_{number}' if number else ''}.png") not in taken
    )
    taken.add(name)
    return name
