"""What a lane or a receiver is called in a sentence: its name is a word for settings and commands."""

from typing import Final

from core.settings import FALLBACK, HTTP, MAIL, MODEL

_CALLED: Final = {
    MODEL: "the model's provider",
    FALLBACK: "the second model's provider",
    "ledger": "the ledger",
    HTTP: "your own system",
    MAIL: "the mail server",
}


def called(name: str) -> str:
    """The words for it, to stand inside a sentence."""
    return _CALLED.get(name, f"the receiver {name}")


def of_second(words: str) -> str:
    """A sentence about the first model, told of the second one."""
    return words.replace("The model", "The second model", 1)


def begin(name: str) -> str:
    """The same at the beginning of a sentence."""
    words = called(name)
    return words[:1].upper() + words[1:]
