"""Many cases from one file: first what would become of each row, then all that can be taken."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from core import errors, evidence, figures, imports, outage
from core.permissions import Who
from pages.parts import access, notice, plain


def show(workflow_name: str, *, who: Who) -> None:
    """The upload, the dry run and the import."""
    st.caption(
        "CSV with a header, or JSON lines; UTF-8, at most 5 MB and 10,000 rows. Nothing is made before you say so."
    )
    file = st.file_uploader("File", type=["csv", "jsonl", "ndjson", "json"], key="submit.file")
    if file is None:
        return
    content = file.getvalue()
    try:
        lines = imports.run(
            file.name, content, actor=who, settings=access.settings(), workflow_name=workflow_name, dry_run=True
        )
    except errors.ActionError as error:
        plain.problem(str(error))
        return
    new = sum(line.status == "new" for line in lines)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(f"{new} new", color="green")
        st.badge(f"{sum(line.status == 'duplicate' for line in lines)} already there", color="gray")
        st.badge(f"{sum(line.status == 'invalid' for line in lines)} invalid", color="red")
        st.space("stretch")
        label = f"Submit {figures.show(new, 'cases')}"
        if st.button(label, type="primary", icon=":material/send:", key="submit.import", disabled=new == 0):
            _take(file.name, content, workflow_name, who)
    _table(lines)


def _take(name: str, content: bytes, workflow_name: str, who: Who) -> None:
    # The same file sent twice makes each case once: the key of a row is the file's digest and its number.
    try:
        with outage.told():
            lines = imports.run(
                name, content, actor=who, settings=access.settings(), workflow_name=workflow_name, dry_run=False
            )
    except errors.StoreAway as error:
        words = f"Not every row was taken. {error} A row that was taken is not made a second case."
        notice.leave("refused", words)
        st.rerun()
    access.wake()
    made = sum(line.status == "new" for line in lines)
    notice.leave("done", f"Submitted: {figures.show(made, 'cases')}.")
    access.go("cases")


def _table(lines: Sequence[imports.Line]) -> None:
    lines = sorted(lines, key=lambda line: line.status != "invalid")  # What needs a look stands first.
    frame = pd.DataFrame(
        [
            {
                "Row": line.row,
                "Becomes": line.status,
                "Case": str(line.case or ""),
                "Why": evidence.visible(line.reason)[0],
            }
            for line in lines
        ]
    )
    st.dataframe(
        frame,
        hide_index=True,
        height=min(35 * (len(lines) + 1) + 3, 560),
        column_config={
            "Row": st.column_config.NumberColumn(width=60),
            "Becomes": st.column_config.TextColumn(width=100),
            "Case": st.column_config.TextColumn(width=70),
            "Why": st.column_config.TextColumn(width="large"),
        },
        alt="What becomes of each row of the file",
    )
