"""Whatever somebody wrote, our HTML shows it as text: no tag, no attribute, no address of theirs."""

from collections.abc import Callable, Iterator
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as some

from core import evidence
from core.evidence import Span
from pages.parts import plain

NASTY = (
    "<script>alert(1)</script>", "</div><img src=x onerror=alert(1)>", "![x](http://evil.example/p.png)",
    '" onmouseover="alert(1)', "&lt;b&gt;", "$x$ `y` **z** [a](javascript:alert(1))", "\u202egnp.exe", "\u200b" * 50,
    "<!-- ", "]]>", "\x00\x1b[31m", "ﷺ" * 20, "</style><style>*{display:none}",
)  # fmt: skip


class Reader(HTMLParser):
    """The tags, attributes and text of a piece of HTML."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def put() -> Iterator[list[str]]:
    """What is put on the page, instead of putting it there."""
    bodies: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "_put", bodies.append)
        patch.setattr(plain, "_say_hidden", lambda count: None)
        yield bodies


def read(bodies: list[str]) -> Reader:
    reader = Reader()
    reader.feed("".join(bodies))
    reader.close()
    bodies.clear()
    return reader


SHOWN: dict[str, Callable[[str], None]] = {
    "marked": lambda words: plain.marked(words, [Span(0, len(words))]),
    "facts": lambda words: plain.facts([(words, words)]),
    "table": lambda words: plain.table([words], [[words]], right=[0]),
    "problem": plain.problem,
    "quiet": plain.quiet,
    "strong": plain.strong,
    "was": plain.was,
    "path": lambda words: plain.path([(words, words, True)]),
    "event": lambda words: plain.event("·", words, words, words, words),
}
TAGS = {"div", "mark", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "del", "span", "ol", "li", "time"}


@pytest.mark.parametrize("show", SHOWN)
@pytest.mark.parametrize("words", NASTY)
def test_nothing_that_was_written_becomes_a_tag(put: list[str], show: str, words: str) -> None:
    SHOWN[show](words)

    found = read(put)

    assert found.tags <= TAGS
    assert found.attributes <= {"style", "role", "title", "aria-hidden"}
    assert evidence.visible(words)[0] in found.text


@given(
    some.text(some.sampled_from("αβγω <>&\"'\u200b\u202e\n\t![]()"), max_size=200),
    some.lists(some.tuples(some.integers(0, 220), some.integers(0, 220)), max_size=4),
)
def test_marks_never_change_the_text(put: list[str], words: str, places: list[tuple[int, int]]) -> None:
    spans = [Span(min(a, b), min(max(a, b), len(words))) for a, b in places if min(a, b) < len(words)]

    plain.marked(words, spans)

    found = read(put)
    assert found.tags <= {"div", "mark"}
    # Markers for invisible characters add letters of their own; Greek has none of those.
    assert [sign for sign in found.text if "α" <= sign <= "ω"] == [sign for sign in words if "α" <= sign <= "ω"]
