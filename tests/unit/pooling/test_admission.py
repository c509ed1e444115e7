"""Which calls are refused at which load."""

import pytest

from dualdb import InterfaceError, Overloaded, ParameterError, PoolTimeout
from dualdb.pooling.admission import Admission, PriorityBlock, current_priority


@pytest.mark.parametrize(
    ("most", "load", "normal", "batch"),
    [
        (10, 0, True, True),
        (10, 4, True, True),
        (10, 5, True, False),
        (10, 9, True, False),
        (10, 10, False, False),
        (10, 99, False, False),
        (1, 0, True, True),
        (1, 1, False, False),
    ],
)
def test_batch_is_refused_first(most: int, load: int, normal: bool, batch: bool) -> None:
    admission = Admission(most)
    assert admission.admits(load) is normal
    with PriorityBlock("batch"):
        assert admission.admits(load) is batch
        with PriorityBlock("normal"):
            assert admission.admits(load) is normal
    assert current_priority() == "normal"


def test_the_error_says_how_many_and_when_to_try_again() -> None:
    admission = Admission(3)
    admission.check(2, "shard 7", 7)
    with pytest.raises(Overloaded, match=r"shard 7 has 3 calls in progress, of 3") as caught:
        admission.check(3, "shard 7", 7)
    assert isinstance(caught.value, PoolTimeout)
    assert (caught.value.shard_id, caught.value.sent) == (7, False)
    assert caught.value.retryable
    assert caught.value.retry_after == 0.1
    assert admission.refused == 1


def test_wrong_uses() -> None:
    with pytest.raises(ParameterError, match="'normal' or 'batch'"):
        PriorityBlock("low")  # type: ignore[arg-type]
    with PriorityBlock("batch") as block, pytest.raises(InterfaceError), block:
        pass
