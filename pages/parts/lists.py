"""Lists of cases as tables; a click on a row opens the case."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from core import cases, evidence, money
from core.cases import Overview, Row
from core.lifecycle import State
from core.permissions import Role, Who
from pages.parts import access, badges, times

STUCK = 8  # More would push what waits for a decision off the screen.
_STUCK = ("escalated/apply", "escalated/undo")  # Beside all that failed; escalated/review waits for a decision.
_CONFIG = {
    "Case": st.column_config.TextColumn(width=62, alignment="right"),
    "State": st.column_config.TextColumn(width=145),
    "Due": st.column_config.TextColumn(width=80),
    "Amount": st.column_config.TextColumn(width=110, alignment="right"),
    "Asks": st.column_config.TextColumn(width=270),
    "From": st.column_config.TextColumn(width=125),
    "Submitted": st.column_config.TextColumn(width=85),
    "Why": st.column_config.TextColumn(),
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
        column_config={name: _CONFIG[name] for name in columns if "Why" in columns or name != "Asks"},
        alt=alt,
    )
    cells = chosen["selection"]["cells"]
    if cells:
        row = rows[int(cells[0][0])].case
        decides = row.state in (State.WAITING_FOR_REVIEW, State.ESCALATED) and row.step == "review"
        may = who.role is Role.LEAD or (who.role is Role.REVIEWER and row.state == State.WAITING_FOR_REVIEW)
        access.go(to or ("review" if decides and may else "case"), case=row.number)


def stuck(who: Who, seen: Overview) -> bool:
    """What only a lead can free, the oldest first, and how many there are. Returns whether there is any."""
    rows = cases.stuck(who, limit=STUCK)
    if rows:
        places = (place for place in seen.places if place.startswith("failed/") or place in _STUCK)
        total = max(len(rows), sum(seen.places[place] for place in places))
        st.subheader("Only a lead can free these", anchor=False)
        show(
            rows, columns=("Case", "State", "Amount", "Asks", "Submitted", "Why"), who=who, key="inbox.stuck",
            alt="Cases that failed or are in doubt", to="case",
        )  # fmt: skip
        if total > len(rows):
            with st.container(horizontal=True, vertical_alignment="center"):
                st.caption(f"The {len(rows)} oldest of {total:,}.", width="content")
                states = f"{State.FAILED},{State.ESCALATED}"
                access.link("cases", "All failed and escalated cases", icon=":material/list_alt:", state=states)
    return bool(rows)


def _line(row: Row) -> dict[str, str]:
    case = row.case
    look = badges.place(case.state, case.step)
    ended = badges.OUTCOMES[case.outcome].label if case.outcome and case.state == State.COMPLETED else ""
    return {
        "Case": str(case.number),
        "Asks": _short(evidence.visible(row.ask)[0], 44),
        "State": f"{look.label} · {ended.lower()}" if ended else look.label,
        "Amount": money.show(case.amount_minor, case.currency) if case.amount_minor else "",
        "From": _short(evidence.visible(row.submitter)[0], 17),
        "Submitted": times.ago(case.created_at),
        "Due": times.ago(case.deadline_at) if case.deadline_at else "",
        "Why": _short(evidence.visible(badges.why(case.state, case.reason))[0], 120),
    }


def _short(words: str, longest: int) -> str:
    return words if len(words) <= longest else f"{words[: longest - 1].rstrip()}…"
