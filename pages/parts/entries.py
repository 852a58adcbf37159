"""The lines of the built-in ledger as a table; a click on one opens its case."""

from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from core import evidence, money
from core.books import Line
from pages.parts import access, times

_CONFIG = {
    "Time": st.column_config.TextColumn(width=95),
    "Case": st.column_config.TextColumn(width=62, alignment="right"),
    "Kind": st.column_config.TextColumn(width=85),
    "Amount": st.column_config.TextColumn(width=105, alignment="right"),
    "Account": st.column_config.TextColumn(width=270),
    "Reference": st.column_config.TextColumn(width=145),
    "Reversed by": st.column_config.TextColumn(width=145),
    "Orders": st.column_config.TextColumn(),
}


def credited(totals: Mapping[str, int]) -> None:
    """What stands credited in all, per currency."""
    if not totals:
        return
    with st.container(horizontal=True, gap="small", key="ledger-totals"):
        for currency, minor in totals.items():
            st.metric(f"Credited in {currency}", money.plain(minor, currency), border=True, width="content")
    st.caption("What was credited less what was taken back.")


def elsewhere() -> None:
    """That money does not move here, where the team's own system is connected."""
    with st.container(border=True, gap="xsmall", key="ledger-elsewhere"):
        st.text("Refunds go to your own system, at the address in COUNTERSIGN_HTTP_URL, and not to this ledger.")
        st.caption(
            "What was sent there stands on the page of each case, with the receipt. Only what was credited before that "
            "stands here."
        )


def show(lines: Sequence[Line], *, key: str) -> None:
    """The table. Cells are plain text on a canvas."""
    if not lines:
        st.caption("There is nothing older.")
        return
    chosen = st.dataframe(
        pd.DataFrame([_line(one) for one in lines])[list(_CONFIG)],
        key=key,
        hide_index=True,
        height="content" if len(lines) <= 16 else 600,
        on_select="rerun",
        selection_mode="single-cell",
        column_config=_CONFIG,
        alt="Lines of the ledger, the newest first",
    )
    cells = chosen["selection"]["cells"]
    if cells and (number := lines[int(cells[0][0])].case) is not None:
        access.go("case", case=number)


def _line(one: Line) -> dict[str, str]:
    moved = one.transfer
    taken_back = moved.kind == "undo"
    return {
        "Time": times.local(moved.at),
        "Case": str(one.case) if one.case is not None else "not ours",
        "Kind": "Take back" if taken_back else "Credit",
        "Amount": money.show(-moved.amount_minor if taken_back else moved.amount_minor, moved.currency),
        "Account": evidence.visible(moved.account)[0],
        "Reference": moved.reference,
        "Reversed by": one.reversed_by or "",
        "Orders": evidence.visible(moved.references)[0],
    }
