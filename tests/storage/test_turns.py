"""Nobody waits long for the one writing connection, and no two ever have it."""

import threading

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeout

from storage import turns
from storage.turns import Turns


def test_only_one_has_the_turn() -> None:
    ours, inside, most = Turns(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with ours.turn():
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (most, inside) == (1, 0)


def test_whoever_has_waited_long_is_next_even_when_another_asks_at_the_right_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.0)
    ours, order, waiting = Turns(), [], threading.Event()

    def patient() -> None:
        waiting.set()
        with ours.turn():
            order.append("the one who waited")

    thread = threading.Thread(target=patient)
    with ours.turn():
        thread.start()
        waiting.wait(5)
        while not ours.queue_length:
            pass
    with ours.turn():  # At once: the turn was passed on already.
        order.append("the one who came later")
    thread.join(5)

    assert order == ["the one who waited", "the one who came later"]


def test_a_wait_has_an_end_and_leaves_no_trace() -> None:
    ours = Turns()

    with ours.turn(), pytest.raises(PoolTimeout, match="no turn"):
        ours._take(0.01)

    assert ours.queue_length == 0
    with ours.turn(0.01):
        pass
