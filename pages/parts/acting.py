"""What a person may do to a case besides deciding it: buttons where the table of moves and the role allow it."""

from functools import partial
from typing import Any

import streamlit as st

from core import acting, actions, cases, clock, doubts, effects, lifecycle, money, settling
from core.actions import Verdict
from core.lifecycle import Verb
from core.moves import place_of
from core.permissions import Act, Who
from pages.parts import access, doubtful, notice, panel


def may_answer(seen: cases.View, who: Who) -> bool:
    """Whether this person may answer the open question."""
    return cases.refusal(seen, Act.ANSWER, who) is None


def buttons(seen: cases.View, *, who: Who) -> None:
    """Every action that is open to this person now, and the panels behind them."""
    number, place = seen.case.number, place_of(seen.case)
    offered: list[tuple[str, str, str]] = []  # What the button says, its panel, its icon.

    def offer(label: str, name: str, icon: str, act: Act, verb: Verb | None) -> None:
        if (verb is None or cases.can(seen, verb)) and cases.refusal(seen, act, who) is None:
            offered.append((label, name, icon))

    in_doubt = any(map(_doubtful, seen.effects))
    questionable = effects.questionable(seen.effects, seen.events, place)
    decides = place in lifecycle.REVIEWABLE and cases.refusal(seen, Act.DECIDE, who) is None
    offer("Withdraw", "withdraw", "cancel", Act.WITHDRAW, Verb.WITHDRAW)
    if place != lifecycle.ESCALATED_APPLY or not in_doubt:
        offer("Try again", "retry", "replay", Act.RETRY, Verb.RETRY)
    if place in (lifecycle.FAILED_PROPOSE, lifecycle.FAILED_APPLY):
        offer("Take by hand", "manual", "back_hand", Act.MANUAL, Verb.MANUAL)
    if seen.case.outcome == "declined":
        offer("Reopen", "reopen", "lock_open", Act.REOPEN, Verb.REOPEN)
    if in_doubt:
        offer("Settle the outcome", "settle", "fact_check", Act.SETTLE, Verb.SETTLE)
    else:
        offer("Accept as it is", "accept", "task_alt", Act.ACCEPT, Verb.ACCEPT)
        if questionable:
            offer("Question the outcome", "question", "contact_support", Act.SETTLE, Verb.QUESTION)
    stands = place == lifecycle.COMPLETED_APPLY and seen.case.outcome == "applied"
    rolls = stands or (cases.can(seen, Verb.ROLL_BACK) and not in_doubt and cases.has_undo(seen))
    rolls = rolls and cases.refusal(seen, Act.ROLL_BACK, who) is None
    unclear = doubts.unclear(seen.effects, seen.attempts)
    asks = any(doubts.can_be_asked(one.receiver, access.receivers()) for one in unclear)
    asks = asks and cases.refusal(seen, Act.LOOK_UP, who) is None
    if not offered and not decides and not rolls and not asks:
        return
    with st.container(horizontal=True, key="case-actions"):
        if decides and st.button(
            "Review", type="primary", icon=":material/rate_review:", key="case.review", shortcut="V"
        ):
            access.go("review", case=number)
        if rolls and st.button("Roll back", icon=":material/undo:", key="case.roll_back"):
            access.go("rollback", case=number)
        if asks:
            doubtful.look_up_button(seen.case.id, who=who, key="case.look_up")
        for label, name, icon in offered:
            panel.opener(label, f"{name}.{number}", key=f"case.{name}", icon=f":material/{icon}:")
    _panels(seen, who)


def _panels(seen: cases.View, who: Who) -> None:
    case, settings = seen.case, access.settings()
    number, version = case.number, case.version
    if panel.is_open(f"withdraw.{number}"):
        _confirm(
            f"Withdraw case {number}?",
            "It ends here and nothing is done. This cannot be taken back.",
            "Withdraw",
            partial(actions.withdraw, case.id, actor=who, version=version),
        )
    if panel.is_open(f"retry.{number}"):
        _confirm(
            f"Try case {number} again?",
            "The proposal is asked for again."
            if place_of(case) == lifecycle.FAILED_PROPOSE
            else "What was refused is sent again, with a new key.",
            "Try again",
            partial(actions.retry, case.id, actor=who, settings=settings, version=version),
        )
    panel.ask(
        f"manual.{number}",
        f"Take case {number} by hand",
        label="What was done, and where",
        confirm="Close as handled by hand",
        hint="Nothing is sent from here.",
        do=lambda words: actions.decide(
            case.id, Verdict.MANUAL, actor=who, settings=settings, note=words, version=version
        ),
    )
    panel.ask(
        f"accept.{number}",
        f"Accept case {number} as it is",
        label="Why",
        confirm="Accept",
        hint=f"{effects.sum_of(effects.standing(seen.effects))} stands applied. What was not sent yet is not sent any "
        "more.",
        do=lambda words: actions.accept(case.id, words, actor=who, version=version),
    )
    panel.ask(
        f"question.{number}",
        f"Question the outcome of case {number}",
        label="Why it may be otherwise",
        confirm="Put it in doubt again",
        hint="What people settled, or the receiver's record contradicts, is in doubt again: it can be looked up, and "
        "two leads settle it anew.",
        do=lambda words: settling.question(case.id, words, actor=who, version=version),
    )
    panel.ask(
        f"reopen.{number}",
        f"Reopen case {number}",
        label="Why",
        confirm="Reopen",
        hint="The case goes back to review.",
        do=lambda words: actions.reopen(case.id, words, actor=who, settings=settings, version=version),
    )
    in_doubt = [one for one in seen.effects if _doubtful(one)]
    in_time = all(one.send_before is None or clock.now() < one.send_before for one in in_doubt)
    amount = next((money.show(one.amount_minor, one.currency) for one in in_doubt if one.amount_minor), "")
    doubtful.settle_panel(case.id, number, version, can_resend=in_time, amount=amount, who=who)


def _doubtful(effect: Any) -> bool:
    return bool(effect.state == "in_doubt")


def _confirm(title: str, words: str, label: str, do: partial[acting.Done]) -> None:
    def draw() -> None:
        st.text(words)
        if st.button(label, type="primary", key="confirm", on_click=_run, args=(do,)):
            st.rerun()

    st.dialog(title, on_dismiss=panel.close)(draw)()


def _run(do: partial[acting.Done]) -> None:
    notice.act(do)
    panel.close()
