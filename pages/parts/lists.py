"""Lists of cases as tables; a click on a row opens the case."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from core import evidence, money
from core.cases import Row
from core.lifecycle import State
from core.permissions import Role, Who
from pages.parts import access, badges, times

_CONFIG = {
    "Case": st.column_config.TextColumn(width=60, alignment="right"),
    "Asks": st.column_config.TextColumn(width=320),
    "State": st.column_config.TextColumn(width=140),
    "Amount": st.column_config.TextColumn(width=95, alignment="right"),
    "From": st.column_config.TextColumn(width=110),
    "Submitted": st.column_config.TextColumn(width=90),
    "Due": st.column_config.TextColumn(width=70),
    "Why": st.column_config.TextColumn(width=340),
}


def show(rows: Sequence[Row], *, columns: Sequence[str], who: Who, key: str, alt: str, to: str = "") -> None:
    """The table. Cells are plain text on a canvas. A click opens the page `to`; without one, review where
    this person may decide, else the case."""
    frame = pd.DataFrame([_line(row) for row in rows])[list(columns)]
    chosen = st.dataframe(
        frame,
        key=key,
        hide_index=True,
        height="content" if len(rows) <= 16 else 600,
        on_select="rerun",
        selection_mode="single-cell",
        column_config={name: _CONFIG[name] for name in columns},
        alt=alt,
    )
    cells = chosen["selection"]["cells"]
    if cells:
        row = rows[int(cells[0][0])].case
        decides = row.state in (State.WAITING_FOR_REVIEW, State.ESCALATED) and row.step == "review"
        may = who.role is Role.LEAD or (who.role is Role.REVIEWER and row.state == State.WAITING_FOR_REVIEW)
        access.go(to or ("review" if decides and may else "case"), case=row.number)


def _line(row: Row) -> dict[str, str]:
    case = row.case
    look = badges.place(case.state, case.step)
    ended = badges.OUTCOMES[case.outcome].label if case.outcome and case.state == State.COMPLETED else ""
    return {
        "Case": str(case.number),
        "Asks": _short(evidence.visible(row.ask)[0], 48),
        "State": f"{look.label} · {ended.lower()}" if ended else look.label,
        "Amount": money.show(case.amount_minor, case.currency) if case.amount_minor else "",
        "From": row.submitter,
        "Submitted": times.ago(case.created_at),
        "Due": times.ago(case.deadline_at) if case.deadline_at else "",
        "Why": _short(evidence.visible(case.reason or "")[0], 120),
    }


def _short(words: str, longest: int) -> str:
    return words if len(words) <= longest else f"{words[: longest - 1].rstrip()}…"
