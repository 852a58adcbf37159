"""Where effects go. A receiver is one file with `apply`, `undo` and `find`; each answers with values, never an
exception, for everything the other side can do."""

from typing import Protocol

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
