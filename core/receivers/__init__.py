"""Where effects go. A receiver is one file with `apply`, `undo` and `find`; each answers with values, never an
exception, for everything the other side can do."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from core.outcomes import Answer, Receipt


class Receiver(Protocol):
    """A system that effects are sent to."""

    @property
    def name(self) -> str:
        """The word that effects name it by."""

    def apply(self, *, key: str, payload: str) -> Answer:
        """Apply the effect once for this key, however often it is sent; the payload is sent as these very bytes."""

    def undo(self, *, key: str, payload: str) -> Answer:
        """Take an applied effect back; the key is the undo's own."""

    def find(self, *, key: str) -> Receipt | None:
        """The receipt of what was applied with this key; None when the receiver does not know it (yet)."""


@runtime_checkable
class Listing(Protocol):
    """A receiver that can also say all it ever applied for us. It has then forgotten no key, and reconciliation sees
    what it holds that we do not know of."""

    def holdings(self) -> Iterable[Receipt]:
        """The receipts of everything that was applied with a key of ours."""
