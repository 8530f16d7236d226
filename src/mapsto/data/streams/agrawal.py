"""The Agrawal generator: people who ask for a loan, and ten rules of what they own and earn that put them into group A or B.

Salary is uniform in 20,000 to 150,000; commission 0 from a salary of 75,000 on, else uniform in 10,000 to 75,000; age 20 to 80; level of
education 0 to 4; car 1 to 20; zip code 0 to 8; value of the house uniform in 0.5 to 1.5 times 100,000 (9 - zip code); its age 1 to 30
years; loan up to 500,000. Functions 1 to 6 are ranges of age, salary, education and loan, 7 to 10 are linear, as in
``A where 2/3 (salary + commission) - loan/5 > 20,000`` (Agrawal, Imielinski and Swami, "Database Mining: A Performance Perspective", 1993).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from mapsto.data.streams._generated import Drawn, Generated
from mapsto.kinds import ColumnType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    _Numbers = Mapping[str, NDArray[Any]]
    _Ranges = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]

__all__ = ["Agrawal"]

_WORDS = ("education", "car", "zipcode")
_NUMBERS = {
    "salary": (20_000.0, 150_000.0),
    "commission": (10_000.0, 75_000.0),
    "age": (20.0, 80.0),
    "house_value": (50_000.0, 1_350_000.0),
    "house_years": (1.0, 30.0),
    "loan": (0.0, 500_000.0),
}
"""The range of each."""


class Agrawal(Generated):
    """Nine columns, three of them words, and classes `A` and `B`, by one function after the other.

    >>> block = next(Agrawal(functions=(1,), perturbation=0.0).open(size=100))
    >>> [not 40 <= age < 60 for age in block.x["age"]] == [label == "A" for label in block.y]
    True
    >>> block.x["car"][0], Agrawal().columns()["car"]
    ('car 17', 'word')
    """

    contract: ClassVar[dict[str, Any]] = {"events": 120, "concept": 40, "label_delay": 20}

    functions: tuple[Annotated[int, Field(ge=1, le=10)], ...] = Field(default=(1, 4, 7, 10), min_length=1)
    """The number of the rule of each concept in turn, 1 to 10."""
    concept: int = Field(default=2500, ge=1)
    """Rows of a concept; after the last the first comes again."""
    perturbation: float = Field(default=0.05, ge=0, le=1)
    """How far a number is moved after its label was found, as a share of its range; 0.05 in the paper."""

    def columns(self) -> Mapping[str, ColumnType]:
        return {**dict.fromkeys(_NUMBERS, "number"), **dict.fromkeys(_WORDS, "word")}

    def draw(self, rows: NDArray[np.int64], rng: np.random.Generator) -> Drawn:
        import numpy as np

        count = len(rows)
        salary = 20_000 + 130_000 * rng.random(count)
        zipcode = rng.integers(0, 9, count)
        found: dict[str, NDArray[Any]] = {
            "salary": salary,
            "commission": np.where(salary >= 75_000, 0.0, 10_000 + 65_000 * rng.random(count)),
            "age": rng.integers(20, 81, count).astype(np.float64),
            "house_value": (9 - zipcode) * 100_000 * (0.5 + rng.random(count)),
            "house_years": rng.integers(1, 31, count).astype(np.float64),
            "loan": 500_000 * rng.random(count),
            "education": rng.integers(0, 5, count),
            "car": rng.integers(1, 21, count),
            "zipcode": zipcode,
        }
        concepts = rows // self.concept % len(self.functions)
        of_a = np.zeros(count, np.bool_)
        for place, function in enumerate(self.functions):
            here = concepts == place
            if here.any():
                of_a[here] = _FUNCTIONS[function - 1]({name: values[here] for name, values in found.items()})
        moves = self.perturbation * (2 * rng.random((len(_NUMBERS), count)) - 1)
        for (name, (low, high)), move in zip(_NUMBERS.items(), moves, strict=True):
            moved = np.clip(found[name] + move * (high - low), low, high)
            found[name] = np.where(found[name] > 0, moved, 0.0) if self.perturbation else found[name]
        for name in _WORDS:
            found[name] = np.array([f"{name} {value}" for value in found[name].tolist()], dtype=object)
        return found, np.array(["B", "A"], dtype=object)[of_a.astype(np.int64)]


def _by_age(x: _Numbers, young: Any, middle: Any, old: Any) -> Any:
    """What holds below 40, from 40 to 60, and from 60 years on."""
    import numpy as np

    return np.where(x["age"] < 40, young, np.where(x["age"] < 60, middle, old))


def _within(values: NDArray[Any], ranges: tuple[float, float]) -> NDArray[Any]:
    """Whether values lie in a range of thousands."""
    return (values >= 1000 * ranges[0]) & (values <= 1000 * ranges[1])


def _educated(x: _Numbers) -> NDArray[Any]:
    """Levels 0 and 1 of the young, 1 to 3 of the middle, 2 to 4 of the old."""
    level = x["education"]
    return _by_age(x, level <= 1, (level >= 1) & (level <= 3), level >= 2)


def _salary_in(x: _Numbers, ranges: _Ranges) -> NDArray[Any]:
    return _by_age(x, *(_within(x["salary"], each) for each in ranges))


_PAID: _Ranges = ((50, 100), (75, 125), (25, 75))


def _fourth(x: _Numbers) -> NDArray[Any]:
    import numpy as np

    there = _salary_in(x, ((25, 75), (50, 100), (50, 100)))
    return np.where(_educated(x), there, _salary_in(x, ((50, 100), (75, 125), (25, 75))))


def _fifth(x: _Numbers) -> NDArray[Any]:
    import numpy as np

    paid = _by_age(x, *(_within(x["loan"], each) for each in ((100, 300), (200, 400), (300, 500))))
    rest = _by_age(x, *(_within(x["loan"], each) for each in ((200, 400), (300, 500), (100, 300))))
    return np.where(_salary_in(x, _PAID), paid, rest)


def _income(x: _Numbers) -> NDArray[Any]:
    return x["salary"] + x["commission"]


def _equity(x: _Numbers) -> NDArray[Any]:
    import numpy as np

    return np.where(x["house_years"] >= 20, x["house_value"] * (x["house_years"] - 20) / 10, 0.0)


_FUNCTIONS: tuple[Callable[[_Numbers], NDArray[Any]], ...] = (
    lambda x: (x["age"] < 40) | (x["age"] >= 60),
    lambda x: _salary_in(x, _PAID),
    _educated,
    _fourth,
    _fifth,
    lambda x: _by_age(x, *(_within(_income(x), each) for each in _PAID)),
    lambda x: 2 / 3 * _income(x) - x["loan"] / 5 - 20_000 > 0,
    lambda x: 2 / 3 * _income(x) - 5000 * x["education"] - 20_000 > 0,
    lambda x: 2 / 3 * _income(x) - 5000 * x["education"] - x["loan"] / 5 - 10_000 > 0,
    lambda x: 2 / 3 * _income(x) - 5000 * x["education"] + _equity(x) / 5 - 10_000 > 0,
)
"""Whether a person is of group A."""
