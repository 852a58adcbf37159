"""PostgreSQL stops as by a crash, every few seconds, while people submit and approve and two workers work: nothing is
lost and nothing is applied twice. Three hundred cases here, two thousand in `make faults`."""

import pytest

from core.trials import torture
from tests.faults.processes import alone


@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("number", [200, pytest.param(2_000, marks=pytest.mark.long)])
def test_a_database_that_restarts_under_load_loses_nothing_and_doubles_nothing(number: int) -> None:
    found = alone(torture.restart, number)
    print(f"{found.restarts} restarts, work went on after at most {max(found.recoveries):.1f} s")

    assert found.restarts >= 2
    assert len(found.recoveries) >= found.restarts - 1  # After the last one there may have been nothing left to do.
    assert found.left.acknowledged >= 2 * number - found.restarts  # An answer that was lost is not an acknowledgement.
    assert (found.left.lost, found.left.doubled, found.left.broken) == (0, 0, [])
