"""One message to a customer as a frame: to whom, about what, whether it is out, and its words as plain text."""

import streamlit as st

from core.outbox import Letter
from pages.parts import access, badges, plain, times
from pages.parts.timeline import EFFECTS

_SENT = badges.Look("Sent", "green", "mark_email_read")


def show(one: Letter) -> None:
    """The frame, with the words folded."""
    with st.container(border=True, gap="xsmall", key=f"letter-{one.id}"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            badges.put(_SENT if one.state == "applied" else EFFECTS[one.state])
            if one.is_correction:
                st.badge("Correction", color="violet", icon=":material/edit:")
            if one.is_corrected:
                st.badge("Corrected", color="violet", icon=":material/edit:")
            st.caption(f"{times.local(one.at)}", width="content", help=times.exact(one.at))
            st.space("stretch")
            access.link("case", f"Case {one.case}", icon=":material/description:", case=one.case)
        plain.strong(one.to or "The address was erased", size=".98rem")
        plain.quiet(one.subject or "The subject was erased")
        with st.expander("Read it", icon=":material/mail:"):
            plain.text(one.body or "The text was erased.")
            if one.found_by:
                named = f", who name {one.reference}" if one.reference else ""
                names = " and ".join(one.found_by)
                plain.quiet(f"The server did not say that it took it: found sent by {names}{named}.")
            elif one.reference:
                plain.quiet(f"Message-ID {one.reference}")


def how_to_connect() -> None:
    """What to set where no mail server is connected."""
    with st.container(border=True, gap="xsmall", key="outbox-unconnected"):
        st.text("No mail server is connected, so no reply is sent: what reviewers approve is kept with the case.")
        st.caption("Set these and start again. The line is encrypted by STARTTLS unless COUNTERSIGN_MAIL_TLS says tls.")
        lines = ("COUNTERSIGN_MAIL_HOST=smtp.example.com", "COUNTERSIGN_MAIL_FROM=shop@example.com",
                 "COUNTERSIGN_MAIL_USER=…", "COUNTERSIGN_MAIL_PASSWORD=…")  # fmt: skip
        st.code("\n".join(lines), language=None)
