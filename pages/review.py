"""Review: what came in beside what is proposed; decide, and say why."""

from functools import partial

import streamlit as st

from core import cases, clock, errors, lifecycle
from core.moves import place_of
from core.permissions import Act
from pages.parts import access, badges, bar, notice, panel, plain, proposal, pulse, queue, request, times, verdicts
from pages.parts.verdicts import Shown

who = access.open_page("review")
verdicts.give(who)
notice.show()

overview = cases.overview()
line = queue.read(who, overview, limit=queue.ROWS, now=clock.now())
asked = st.query_params.get("case", "")
if not asked and not line.rows:
    st.title("Review")
    last = f" The last decision was {times.ago(overview.last_decision)}." if overview.last_decision else ""
    st.caption(f":material/done_all: Nothing is waiting for review.{last}")
    access.link("inbox", "Inbox", icon=":material/inbox:")
    access.end_page()
try:
    seen = cases.view(cases.resolve(asked) if asked else line.rows[0].case.id, actor=who)
except errors.NotFound as error:
    st.title("Review")
    notice.box("refused", str(error))
    access.link("inbox", "Inbox", icon=":material/inbox:")
    access.end_page()

case = seen.case
st.query_params["case"] = str(case.number)
shown = Shown(case.id, case.number, seen.digest, case.version, seen.proposal.id.hex[-12:] if seen.proposal else "none")

refusal = cases.refusal(seen, Act.DECIDE, who)
decidable = place_of(case) in lifecycle.REVIEWABLE and refusal is None
with st.container(horizontal=True, vertical_alignment="center", key="review-head"):
    st.title(f"Case {case.number}", anchor=False, width="content")
    badges.of_case(case.state, case.step, case.outcome)
    if case.demo:
        st.badge("Demo", color="gray")
    if case.deadline_at is not None:
        st.badge(f"Due {times.ago(case.deadline_at)}", color="gray", icon=":material/alarm:")
    access.link("case", "Whole case", icon=":material/description:", case=case.number)
    if decidable:
        st.space("stretch")
        with st.container(horizontal=True, vertical_alignment="center", width="content", key="review-walk"):
            bar.walk(shown, line)

if not decidable:
    if refusal is not None and place_of(case) in lifecycle.REVIEWABLE:
        notice.box("refused", refusal)
    panel.close()
    bar.decided(seen, shown, who=who, line=line)
    access.end_page()

if case.reason:
    plain.quiet(f"Why a person is asked: {case.reason}")
request.similar(seen)
kept = proposal.fill(seen, shown, who)
if kept is not None:
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        st.text("You edited an earlier proposal of this case; the edits were kept.")
        st.button("Put them in", key="review.use_kept", on_click=partial(proposal.use_kept, seen, shown, who))
values, wrong = verdicts.final_values(seen, verdicts.typed(seen.kind, shown))
found, more = proposal.checked(seen, values if values is not None else seen.proposal.values if seen.proposal else {})
touched = values is not None and seen.proposal is not None
wrong = (more | wrong if touched else {}) | verdicts.problems()  # What was typed wrong tells more.
edited = proposal.edited_by(seen, values)

left, right = st.columns([11, 10], gap="medium")
with left, st.container(border=True, key="review-request"):
    st.subheader(":material/mail: What came in", anchor=False)
    request.show(seen, marks=proposal.quotes(seen), key="review-request-body")
with right:
    with st.container(border=True, key="review-checks", gap="small"):
        st.subheader(":material/fact_check: What code checked", anchor=False)
        if found is not None:
            proposal.flags(found.flags)
        else:
            st.caption("Checked as soon as the values hang together.")
    form = st.form("review-form", enter_to_submit=False)
    with form:
        source = "built-in rules" if seen.proposal and not access.settings().uses_model else "the model"
        title = f"What {source} propose" if source == "built-in rules" else f"What {source} proposes"
        heading = title if seen.proposal else "No usable proposal: fill in by hand"
        st.subheader(f":material/edit_note: {heading}", anchor=False)
        proposal.fields(seen, shown, edited=edited, wrong=wrong)
        st.text_input("Note", key=verdicts.key(shown, "note"), max_chars=1000, placeholder="Optional with an approval")
        st.form_submit_button(
            "Check edits",
            key="review.check",
            icon=":material/rule:",
            help="Runs the checks on what you typed. Nothing is decided.",
            on_click=proposal.keeper(seen, shown, who),
        )
    if edited:
        st.button("Forget the edits", key="review.reset", type="tertiary", icon=":material/restart_alt:",
                  on_click=partial(proposal.reset, seen, shown, who))  # fmt: skip
    with st.container(border=True, key="review-effects", gap="small"):
        st.subheader(":material/bolt: What will happen", anchor=False)
        proposal.what_will_happen(seen, found)
    # Of a long message the marked places are scrolled away: then the quotes are open.
    with st.expander("Quoted evidence", icon=":material/format_quote:", expanded=request.is_tall(seen)):
        proposal.quote_list(seen)

question = found.route.question if found is not None and found.route.question else ""
short = proposal.in_short(seen, found, edited=bool(edited), wrong=wrong)
bar.decide(seen, shown, form=form, edits=len(edited), short=short, question=question)
pulse.watch(seen)
