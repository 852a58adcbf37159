"""Case: one case from first to last, and what may be done about it."""

import streamlit as st

from core import cases, errors, money
from pages.parts import access, acting, badges, notice, plain, pulse, questions, request, timeline, times

who = access.open_page("case")
asked = st.query_params.get("case", "")
if not asked:
    st.title("Case")
    st.caption("No case was chosen.")
    access.link("cases", "All cases", icon=":material/list_alt:")
    st.stop()
try:
    seen = cases.view(cases.resolve(asked), actor=who)
except errors.NotFound as error:
    st.title("Case")
    notice.box("refused", str(error))
    access.link("cases", "All cases", icon=":material/list_alt:")
    st.stop()

case = seen.case
with st.container(horizontal=True, vertical_alignment="center", key="case-head"):
    st.title(f"Case {case.number}", anchor=False, width="content")
    badges.of_case(case.state, case.step, case.outcome)
    if case.demo:
        st.badge("Demo", color="gray")
    st.space("stretch")
    if case.amount_minor:
        st.text(money.show(case.amount_minor, case.currency))
plain.quiet(f"{seen.kind.title} · submitted {times.ago(case.created_at)} by {seen.name(case.submitted_by)}")

pulse.hold(seen, who=who, key="case")
if why := badges.why(case.state, case.reason):
    notice.box("info", why)
request.similar(seen)

timeline.ribbon(seen)
acting.buttons(seen, who=who)
if seen.open_question is not None and acting.may_answer(seen, who):
    with st.container(border=True):
        st.subheader("A question for you", anchor=False)
        questions.answer(seen, who=who, key=f"case.{case.number}.answer")

left, right = st.columns([11, 9], gap="medium")
with left:
    st.subheader("What happened", anchor=False)
    zone = times.zone().key
    st.caption(f"Times are {zone}." if zone == "UTC" else f"Times are {zone}; each shows UTC when pointed at.")
    with st.container(border=True, key="case-timeline", gap="small"):
        timeline.show(seen, who=who, key=f"case-{case.number}")
    st.subheader("What was sent", anchor=False)
    timeline.effects(seen)
with right:
    st.subheader("Request", anchor=False)
    with st.container(border=True):
        request.show(seen, key="case-request")
    if seen.proposals:
        st.subheader("Latest proposal", anchor=False)
        with st.container(border=True):
            plain.facts(timeline.proposal_words(seen, seen.proposals[-1].values))
    timeline.download(seen)
pulse.watch(seen)
