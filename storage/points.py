"""Named points that the program passes, so that a test can end the process at exactly one of them.

In production nothing listens and `reach` does nothing.
"""

from collections.abc import Callable

_listener: Callable[[str], None] | None = None


def listen(listener: Callable[[str], None] | None) -> None:
    """Call `listener` with the name of every point that is reached from now on; None stops it."""
    global _listener  # noqa: PLW0603 - one listener per process, in tests alone.
    _listener = listener


def reach(name: str, count: int = 1) -> None:
    """Say that the point `name` is reached; with a count of zero nothing happened and nothing is said."""
    if _listener is not None and count:
        _listener(name)
