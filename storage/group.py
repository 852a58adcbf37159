"""Group commit: calls that come while another's transaction is being committed share the next one.

A commit that waits for the disk costs the same for one row as for fifty. So the first caller writes for itself alone,
at once; whoever arrives meanwhile waits, and is then written together with all who wait. Nobody is answered before the
commit that holds their rows.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")


@dataclass
class _Call(Generic[ItemT, AnswerT]):
    item: ItemT
    turn: threading.Event = field(default_factory=threading.Event)
    answer: AnswerT | Exception | None = None


class Group(Generic[ItemT, AnswerT]):
    """Gathers calls of many threads. `write` commits a batch and gives an answer or an error for each item; when it
    raises, every item of the batch is written by itself, so that one cannot spoil the others; but an error of `common`
    is the same for all, and all get it."""

    def __init__(
        self,
        write: Callable[[Sequence[ItemT]], Sequence[AnswerT | Exception]],
        *,
        common: tuple[type[Exception], ...] = (),
        most: int = 64,
    ) -> None:
        self._write = write
        self._common = common
        self._most = most
        self._lock = threading.Lock()
        self._waiting: deque[_Call[ItemT, AnswerT]] = deque()
        self._busy = False

    def __call__(self, item: ItemT) -> AnswerT:
        """Write this item, alone or with others, and give its answer. Raises what `write` answered or raised."""
        call: _Call[ItemT, AnswerT] = _Call(item)
        with self._lock:
            self._waiting.append(call)
            leads = not self._busy
            self._busy = True
        if not leads:
            call.turn.wait()
        if call.answer is None:  # Nobody wrote ours: it is our turn to write, for all who wait.
            self._lead()
        assert call.answer is not None
        if isinstance(call.answer, Exception):
            raise call.answer
        return call.answer

    def _lead(self) -> None:
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
        try:
            self._answer(batch)
        finally:
            with self._lock:
                self._busy = bool(self._waiting)
                if self._waiting:
                    self._waiting[0].turn.set()  # The next leads; its own answer is still open.
            for call in batch:
                call.turn.set()

    def _answer(self, batch: list[_Call[ItemT, AnswerT]]) -> None:
        try:
            answers = self._write([call.item for call in batch])
        except Exception as error:
            if len(batch) == 1 or isinstance(error, self._common):
                for call in batch:
                    call.answer = error
                return
            for call in batch:
                self._answer([call])
            return
        for call, answer in zip(batch, answers, strict=True):
            call.answer = answer
