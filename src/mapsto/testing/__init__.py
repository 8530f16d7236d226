"""The contract suite: what every mapping promises, checked on every mapping found. Third parties can run it on theirs.

    import pytest
    from mapsto import testing

    @pytest.mark.parametrize("case", testing.cases("my_package."), ids=str)
    def test_contract(case, tmp_path):
        case.check(tmp_path)

A mapping may say which small field values the suite should use (``contract: ClassVar[dict] = {"steps": 2}``) and which promise it
cannot keep, with the reason (``exempt: ClassVar[dict[str, str]]``). Streams have a suite of their own, `stream_cases`.
"""

from mapsto.testing.contract import PROMISES, Case, cases, contract_network
from mapsto.testing.lock import check_lock, write_lock
from mapsto.testing.streams import StreamCase, stream_cases

__all__ = ["PROMISES", "Case", "StreamCase", "cases", "check_lock", "contract_network", "stream_cases", "write_lock"]
