"""How a log line looks: one formatter for the server and the commands, `key=value` or JSON on stderr.

Messages are dotted events and facts are fields; no text of a customer, a model or a reviewer is ever one. An
exception is written as its kind and the places it went through: its own words may hold what somebody typed.
"""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog

from core import errors

# Errors whose words are ours or the machine's.
_SAFE = (errors.CountersignError, OSError, ImportError, AttributeError, NameError, RecursionError, MemoryError)


def set_up(level: str = "info", *, as_json: bool = False) -> None:
    """Format every log line of this process."""
    last = structlog.processors.JSONRenderer() if as_json else structlog.processors.LogfmtRenderer(bool_as_flag=False)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _without_words,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # Asked for at each line: whoever runs us may have put another stream in its place.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _without_words(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    found = line.pop("exc_info", None)
    if found is None or found is False:
        return line
    if isinstance(found, tuple):
        found = found[1]
    error = found if isinstance(found, BaseException) else sys.exception()
    if error is not None:
        line["error"] = type(error).__name__
        if isinstance(error, _SAFE):
            line["words"] = str(error)
        line["trace"] = " < ".join(f"{where}:{number}" for where, number, _ in _places(error))
        if error.__cause__ is not None:
            line["cause"] = type(error.__cause__).__name__
    return line


def without_words(error: BaseException) -> str:
    """An exception for a record that people read: its kind, then the places it went through, the last one first."""
    cause = f" from {type(error.__cause__).__name__}" if error.__cause__ is not None else ""
    return "\n".join(
        [
            f"{type(error).__name__}{cause}",
            *(f"  {where}:{number} in {function}" for where, number, function in _places(error)),
        ]
    )


def _places(error: BaseException) -> list[tuple[str, int | None, str]]:
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    return [(one.filename.split("/site-packages/")[-1], one.lineno, one.name) for one in reversed(frames)]
