"""What a learner over a stream came to, for people: its account (`mapsto.process.Live.account`) as figures, charts and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["beaten_by", "shown_figure"]

_FEW = 50
"""Of fewer labels chance decides who is better."""
_PERCENT = ("accuracy",)


def shown_figure(name: str, value: float) -> str:
    """A figure as it is shown: accuracies in percent, others with four digits.

    >>> shown_figure("window_accuracy", 88.649), shown_figure("kappa", 0.71458), shown_figure("mae", 12345.6)
    ('88.6 %', '0.7146', '1.235e+04')
    """
    return f"{value:.1f} %" if name.endswith(_PERCENT) else f"{value:.4g}"


def beaten_by(account: Mapping[str, Any]) -> list[str]:
    """A line for each answer without a model that was as good as the learner's, or better.

    >>> told = {"labels": 900, "main": "accuracy", "better": 1, "figures": {"accuracy": 60.0}, "baselines": {"majority": 61.29}}
    >>> beaten_by(told)
    ["NOT BETTER than 'majority': 60.0 % beside 61.3 %, so that there is nothing yet to be had from these features"]
    """
    if account.get("labels", 0) < _FEW or not account.get("figures"):
        return []
    main, better = account["main"], account["better"]
    own = account["figures"][main]
    return [
        f"NOT BETTER than '{name}': {shown_figure(main, own)} beside {shown_figure(main, value)}, so that there is nothing yet "
        "to be had from these features"
        for name, value in account["baselines"].items()
        if better * (own - value) <= 0
    ]
