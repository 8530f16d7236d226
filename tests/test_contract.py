"""Every mapping found keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapsto import testing
from mapsto.errors import MapstoError, MissingExtra


@pytest.mark.parametrize("case", testing.stream_cases(), ids=str)
def test_streams(case: testing.StreamCase, tmp_path: Path) -> None:
    try:
        case.check(tmp_path)
    except MissingExtra as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("promise", testing.PROMISES)
@pytest.mark.parametrize("case", testing.cases(), ids=str)
def test_contract(case: testing.Case, promise: str, tmp_path: Path) -> None:
    try:
        case.check(tmp_path, promise)
    except MapstoError as error:
        missing = error if isinstance(error, MissingExtra) else error.__cause__
        if not isinstance(missing, MissingExtra):
            raise
        pytest.skip(str(missing))
