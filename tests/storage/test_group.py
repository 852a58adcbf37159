"""Group commit: whoever waits is written together, each gets its own answer, and one cannot spoil the others."""

import threading
from collections.abc import Sequence

import pytest

from storage.group import Group


class Slow:
    """Writes nothing; the first batch waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.let_go = threading.Event(), threading.Event()

    def __call__(self, batch: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(batch))
        if len(self.batches) == 1:
            self.begun.set()
            assert self.let_go.wait(10)
        if 13 in batch and len(batch) > 1:
            raise ValueError("13 spoils a batch")
        return [ValueError("unlucky") if one == 13 else 10 * one for one in batch]


def _together(write: Slow, items: Sequence[int], **how: object) -> dict[int, object]:
    """The first item begins alone; the others come while it is written."""
    group: Group[int, int] = Group(write, **how)  # type: ignore[arg-type]
    answers: dict[int, object] = {}

    def call(item: int) -> None:
        try:
            answers[item] = group(item)
        except Exception as error:
            answers[item] = error

    threads = [threading.Thread(target=call, args=(item,)) for item in items]
    threads[0].start()
    assert write.begun.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(group._waiting) < len(items) - 1:
        pass
    write.let_go.set()
    for thread in threads:
        thread.join(10)
    return answers


def test_those_who_wait_share_the_next_commit() -> None:
    write = Slow()

    answers = _together(write, [1, 2, 3, 4])

    assert answers == {1: 10, 2: 20, 3: 30, 4: 40}
    assert [sorted(batch) for batch in write.batches] == [[1], [2, 3, 4]]


def test_a_batch_has_an_end_and_the_rest_goes_on_in_the_next() -> None:
    write = Slow()

    answers = _together(write, [1, 2, 3, 4, 5], most=2)

    assert len(answers) == 5
    assert [len(batch) for batch in write.batches] == [1, 2, 2]


def test_one_that_fails_spoils_no_other() -> None:
    write = Slow()

    answers = _together(write, [1, 2, 13])

    assert (answers[1], answers[2]) == (10, 20)
    assert str(answers[13]) == "unlucky"


def test_an_error_that_is_the_same_for_all_is_met_once() -> None:
    write = Slow()

    answers = _together(write, [1, 2, 13], common=(ValueError,))

    assert answers[1] == 10
    assert str(answers[2]) == str(answers[13]) == "13 spoils a batch"
    assert len(write.batches) == 2


def test_a_caller_alone_waits_for_nobody() -> None:
    write = Slow()
    write.let_go.set()
    group: Group[int, int] = Group(write)

    assert [group(1), group(2)] == [10, 20]
    with pytest.raises(ValueError, match="unlucky"):
        group(13)
    assert write.batches == [[1], [2], [13]]
