"""Outbox: every message to a customer, whether it is out, and the case it belongs to."""

from uuid import UUID

import streamlit as st

from core import installation, outbox
from core.settings import MAIL
from pages.parts import access, letters, paging

who = access.open_page("outbox")
st.title("Outbox")

below = paging.identity(st.query_params.get("below"))
found = outbox.letters(who, limit=paging.PAGE + 1, below=below)
if MAIL not in installation.connected(access.settings()):
    letters.how_to_connect()
if not found and below is None:
    st.caption("No message was planned yet. A reply stands here from the approval on.")
    access.end_page()

for one in found[: paging.PAGE]:
    letters.show(one)
following: UUID | None = found[paging.PAGE - 1].id if len(found) > paging.PAGE else None
paging.pager("outbox", below=below, following=following)
