"""Text from outside, shown as nothing but text: escaped, invisible characters marked, never read as Markdown.

Labels, badges, toasts and captions are read as Markdown by Streamlit and never hold such text. Where it must carry a
mark or stand in a table, `_put` is the only door to HTML, and everything that goes through it is escaped here.
"""

import html
from collections.abc import Iterable, Sequence

import streamlit as st

from core import evidence
from core.evidence import Span

_BASE = "overflow-wrap:anywhere;line-height:1.55"
_LINE = "1px solid color-mix(in srgb, currentColor 14%, transparent)"
_FAINT = "opacity:.68"
_SHORT = 12  # Characters of a word that is never broken in a table.


def text(words: str) -> None:
    """A text, as it is, with markers for what would not be seen."""
    shown, hidden = evidence.visible(words)
    st.text(shown)
    _say_hidden(hidden)


def marked(words: str, spans: Iterable[Span]) -> None:
    """A text with these places marked."""
    pieces, at, hidden = [], 0, 0
    for start, end in _merged(spans):
        before, more = evidence.visible(words[at:start])
        inside, most = evidence.visible(words[start:end])
        pieces.append(
            f"{html.escape(before)}"
            f'<mark style="background:rgba(255,190,0,.30);color:inherit;border-radius:3px;padding:0 1px">'
            f"{html.escape(inside)}</mark>"
        )
        at, hidden = end, hidden + more + most
    rest, more = evidence.visible(words[at:])
    _put(f'<div style="{_BASE};white-space:pre-wrap">{"".join(pieces)}{html.escape(rest)}</div>')
    _say_hidden(hidden + more)


def facts(rows: Sequence[tuple[str, str]]) -> None:
    """Names and values, one pair per line."""
    cells = "".join(
        f'<dt style="margin:0;padding:0;{_FAINT}">{_cell(name)}</dt>'
        f'<dd style="margin:0;padding:0;{_BASE}">{_cell(value)}</dd>'
        for name, value in rows
    )
    _put(
        '<dl style="display:grid;grid-template-columns:minmax(7.5rem,max-content) minmax(0,1fr);gap:.3rem 1rem;'
        f'margin:0;padding:0;align-items:baseline;font-size:.95rem">{cells}</dl>'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """A small table of texts; `right` are the columns of numbers."""

    def side(i: int) -> str:
        return "text-align:right;font-variant-numeric:tabular-nums" if i in right else "text-align:left"

    def room(i: int, value: str) -> str:
        """A number or a word stays on its line, and what the line is about keeps room for words."""
        if i in right or (len(value) < _SHORT and " " not in value):
            return ";white-space:nowrap"
        return ";min-width:4.5rem" if i == 0 else ""

    top = "".join(
        f'<th style="{side(i)};font-weight:600;{_FAINT};padding:.25rem .5rem .25rem 0">{_cell(name)}</th>'
        for i, name in enumerate(head)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="{side(i)}{room(i, value)};{_BASE};border-top:{_LINE};padding:.3rem .5rem .3rem 0;'
            f'vertical-align:top">{_cell(value)}</td>'
            for i, value in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    _put(
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;width:100%;font-size:.92rem">'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def problem(words: str) -> None:
    """What is wrong with the field above."""
    # Mixed with the text's own colour: a panel does not say whether it is light or dark.
    red = "color:color-mix(in srgb, #e03131 65%, currentColor)"
    _put(f'<div role="alert" style="{red};font-size:.9rem;{_BASE}">{_cell(words)}</div>')


def quiet(words: str, *, indent: bool = False) -> None:
    """A small line of less weight, as a caption, for words that are not ours."""
    left = "padding-left:2.2rem;" if indent else ""
    _put(f'<div style="{left}{_FAINT};font-size:.88rem;white-space:pre-line;{_BASE}">{_cell(words)}</div>')


def strong(words: str, *, size: str = "1.05rem") -> None:
    """A line of more weight."""
    _put(f'<div style="font-weight:620;font-size:{size};{_BASE}">{_cell(words)}</div>')


def was(old: str) -> None:
    """The value that a field had before it was edited."""
    _put(
        '<div style="font-size:.88rem;border-left:3px solid #df8a05;padding-left:.5rem;margin-top:-.35rem">'
        f'<span style="{_FAINT}">edited, was </span><del style="{_BASE}">{_cell(old or "empty")}</del></div>'
    )


def path(steps: Sequence[tuple[str, str, bool]]) -> None:
    """Stations in a row: name, a small fact under it, and whether it is the present one."""
    boxes = "".join(
        '<li style="flex:0 1 auto;padding:.3rem .7rem;border-radius:8px;'
        + (
            "background:color-mix(in srgb, #4263eb 22%, transparent);font-weight:600"
            if now
            else "background:color-mix(in srgb, currentColor 7%, transparent)"
        )
        + f'"><div style="font-size:.92rem">{_cell(name)}</div>'
        f'<div style="{_FAINT};font-size:.84rem;font-weight:400;font-variant-numeric:tabular-nums">'
        f"{_cell(fact)}</div></li>"
        for name, fact, now in steps
    )
    _put(f'<ol style="display:flex;flex-wrap:wrap;gap:.4rem;list-style:none;margin:0;padding:0">{boxes}</ol>')


def event(icon: str, words: str, actor: str, at: str, exact: str) -> None:
    """One line of a timeline. `icon` is one of our own signs."""
    _put(
        '<div style="display:grid;grid-template-columns:1.6rem minmax(0,1fr) auto;gap:.1rem .6rem;align-items:baseline;'
        'font-size:.95rem">'
        f'<span aria-hidden="true" style="text-align:center">{_cell(icon)}</span>'
        f'<span style="{_BASE}">{_cell(words)} <span style="{_FAINT}">· {_cell(actor)}</span></span>'
        f'<time title="{_cell(exact)}" style="{_FAINT};font-size:.86rem;white-space:nowrap;'
        f'font-variant-numeric:tabular-nums">{_cell(at)}</time></div>'
    )


def _cell(words: str) -> str:
    return html.escape(evidence.visible(words)[0], quote=True)


def _put(body: str) -> None:
    st.html(body)


def _say_hidden(count: int) -> None:
    if count:
        st.caption(f"{count} characters that cannot be seen are shown as ⟨U+…⟩.")


def _merged(spans: Iterable[Span]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted((span.start, span.end) for span in spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
