"""Where effects go. A receiver is one file with `apply`, `undo` and `find`; each answers with values, never an
exception, for everything the other side can do."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

from core import errors
from core.outcomes import Answer, Receipt
from core.workflow import Reversibility

USUAL_RETENTION = timedelta(hours=24)  # What a receiver is taken to remember unless it says otherwise.


class NotAsked(errors.CountersignError):
    """The receiver could not be asked what it holds; the message is a few words of ours."""


@dataclass(frozen=True)
class Sending:
    """One effect on its way out. Key and payload never change; epoch and time are those of this attempt's claim.

    A receiver that is told of two attempts may refuse the one with the lower epoch, and any whose time is long past:
    it was held up on the way, and a later one may have been answered since.
    """

    key: str
    payload: str  # Sent as these very bytes.
    epoch: int
    signed_at: datetime


class Receiver(Protocol):
    """A system that effects are sent to."""

    @property
    def name(self) -> str:
        """The word that effects name it by."""

    @property
    def reversibility(self) -> Reversibility:
        """Whether anything that it applies can be undone there at all."""

    @property
    def retention(self) -> timedelta:
        """For how long it surely remembers a key after it came first. Nothing is sent again near or past the end."""

    @property
    def keeps_keys(self) -> bool:
        """Whether the same key sent twice is applied once. If not, nothing is ever sent twice: what is not known is
        looked up, else it goes to a person."""

    def apply(self, sending: Sending) -> Answer:
        """Apply the effect, once for its key however often it is sent."""

    def undo(self, sending: Sending) -> Answer:
        """Take an applied effect back; the key is the undo's own."""


@runtime_checkable
class Searchable(Protocol):
    """A receiver that can be asked what it holds, as all should: of what others did, people must find out."""

    def find(self, *, key: str) -> Receipt | None:
        """The receipt of what was applied with this key; None when the receiver says that it does not know it. Raises
        `NotAsked`, or what it likes, when it cannot be asked or has not finished with it: then nothing is known."""


@runtime_checkable
class Listing(Protocol):
    """A receiver that can also say all it ever applied for us. It has then forgotten no key, and reconciliation sees
    what it holds that we do not know of."""

    def holdings(self) -> Iterable[Receipt]:
        """The receipts of everything that was applied with a key of ours."""
