"""Ledger: what the built-in store-credit ledger holds, line by line, and what stands credited in all."""

import streamlit as st

from core import books, errors, installation
from core.settings import HTTP
from pages.parts import access, entries, notice, paging

who = access.open_page("ledger")
st.title("Ledger")

below = st.query_params.get("below")
try:
    book = books.book(access.settings(), who, limit=paging.PAGE + 1, below=below)
except errors.ActionError as error:
    notice.box("refused", str(error))
    access.end_page()
moves_elsewhere = HTTP in installation.connected(access.settings())
if moves_elsewhere:
    entries.elsewhere()
if not book.lines and below is None:
    if not moves_elsewhere:
        st.caption(
            "Nothing was credited yet. A refund to store credit or to a payment stands here when it was approved."
        )
    access.end_page()

entries.credited(book.credited)
entries.show(book.lines[: paging.PAGE], key=f"ledger.rows.{below or 0}")
paging.pager(
    "ledger", below=below, following=book.lines[paging.PAGE - 1].transfer.reference if len(book.lines) > paging.PAGE
    else None,
)  # fmt: skip
