"""People, workers and clocks that do to a real store whatever comes to mind, in an order that Hypothesis chooses.

Everything goes through the functions that pages, command line and worker call. Money goes to the real ledger and
letters to a box that counts them: these are the truth that the store's words are compared with, after each step
cheaply, at the end by `verify`.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, ClassVar
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlmodel import col, select

from core import actions, admission, claims, lifecycle, people, record, settling, verify
from core.acting import Done
from core.actions import Verdict
from core.errors import ActionError
from core.executor import Ran, ToPropose, ToSend
from core.lifecycle import ENDED, Place, State, Step
from core.permissions import Who
from core.receivers.ledger import Ledger
from core.settling import Finding
from core.workflows.refunds import Item
from storage import cases, database, lanes
from storage.tables import Answer, Case, Effect, Event
from tests.conftest import Store
from tests.core import drive
from tests.model import world

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
HOLDERS = ("host:1:aa", "host:2:bb")
ABOUT = ("an order of its own", "an order of many", "no order", "a letter")
VERIFY_EVERY = 10  # Steps.
CLOCK_STEPS = (
    timedelta(seconds=1),
    timedelta(minutes=2),
    timedelta(hours=2),
    timedelta(hours=21),
    timedelta(days=3),
    timedelta(days=8),
    timedelta(minutes=-1),
    timedelta(hours=-3),
)

# What happens, and how often rather than something else. Not one rule each: Hypothesis switches rules off at random,
# and without work or people nothing gets far.
HAPPENS = {
    "work": 10, "act": 8, "claim": 2, "go_on": 8, "overtake": 3, "rescue": 2, "stop": 1, "set_the_clock": 1,
    "submit": 1, "meddle": 2,
}  # fmt: skip
HANDS: dict[Place, tuple[str, ...]] = {
    # What people can do with a case where it stands.
    lifecycle.PENDING_PROPOSE: ("withdraw",),
    lifecycle.RETRYING_PROPOSE: ("withdraw",),
    lifecycle.FAILED_PROPOSE: ("retry", "take_by_hand"),
    lifecycle.WAITING: ("approve", "approve", "approve", "decide", "decide", "withdraw"),
    lifecycle.ESCALATED_REVIEW: ("approve", "approve", "decide", "decide", "withdraw"),
    lifecycle.NEEDS_INFORMATION: ("answer", "answer", "withdraw"),
    lifecycle.COMPLETED_REVIEW: ("reopen",),
    lifecycle.PENDING_APPLY: ("take_back", "withdraw"),
    lifecycle.PROCESSING_APPLY: ("take_back", "roll_back"),
    lifecycle.RETRYING_APPLY: ("take_back", "roll_back", "withdraw"),
    lifecycle.FAILED_APPLY: ("retry", "retry", "question", "take_by_hand"),
    lifecycle.ESCALATED_APPLY: ("settle", "settle", "roll_back", "accept", "retry"),
    lifecycle.COMPLETED_APPLY: ("roll_back", "roll_back", "question"),
    lifecycle.ESCALATED_UNDO: ("settle", "accept", "accept", "retry", "question"),
    lifecycle.ROLLED_BACK: ("question",),
}
WISHES = (*sorted({wish for wishes in HANDS.values() for wish in wishes}), "leave", "return")


@dataclass
class Held:
    """Work in the hands of a worker, and what came of it once it ran."""

    holder: str
    work: ToPropose | ToSend
    ran: Ran | None = None


@dataclass
class Tally:
    """What all runs together came to: how often each thing was done or was refused, and every move made."""

    did: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    moves: Counter[tuple[str, Place | None, Place | None]] = field(default_factory=Counter)
    verified: int = 0


class Machine(RuleBasedStateMachine):
    """One run: an installation of its own, its people, two workers and a clock that is set at will."""

    stores: ClassVar[Callable[[], AbstractContextManager[Store]]]  # Opens a new installation.
    tally: ClassVar[Tally]

    def __init__(self) -> None:
        super().__init__()
        self.now, self.monotonic = START, 0.0
        with ExitStack() as stack:
            stack.enter_context(world.clock_of(self._time))
            self.store = stack.enter_context(type(self).stores())
            self.settings = self.store.settings
            self.ledger = Ledger(self.settings.ledger_store_url)
            stack.callback(self.ledger.close)
            self.letters = world.Letters()
            self._open = stack.pop_all()
        self.watch = claims.Watch()
        self.held: list[Held] = []
        self.cases: dict[UUID, Case] = {}  # As they were after the last step.
        self.submitted: dict[UUID, int] = {}
        self.told: list[Done] = []
        self.answers: list[str] = []
        self.fresh, self.steps = count(1), count(1)

    @initialize(
        model=st.sampled_from(world.MODEL_DAYS),
        apply=st.sampled_from(world.RECEIVER_DAYS),
        undo=st.sampled_from(world.RECEIVER_DAYS),
        far=st.sampled_from(["submitted", "approved", "applied"]),
    )
    def begin(self, model: Sequence[str], apply: Sequence[str], undo: Sequence[str], far: str) -> None:
        """Some cases are there already and have come so far; the day is what it is."""
        self.words = {Step.PROPOSE: model, Step.APPLY: apply, Step.UNDO: undo}
        for about in ABOUT:
            self._submit(self.store.submitter, about, None)
        if far != "submitted":
            self._work_quietly()
            for case_id in self.submitted:
                actions.decide(case_id, Verdict.APPROVE, actor=self.store.reviewer, settings=self.settings)
        if far == "applied":
            self._work_quietly()

    @rule(data=st.data())
    def happen(self, data: st.DataObject) -> None:
        """One of the things below that can happen now."""
        self.draw = data.draw
        needs = {
            "work": self._standing(*lifecycle.DUE),
            "act": self._in_hands(),
            "go_on": self.held,
            "overtake": self._standing(*lifecycle.DUE, *lifecycle.IN_WORK),
            "rescue": self._standing(*lifecycle.IN_WORK),
            "stop": self.held,
        }
        possible = [what for what, often in HAPPENS.items() for _ in range(often) if needs.get(what, True)]
        getattr(self, f"_{data.draw(st.sampled_from(possible), label='happens')}")()
        if next(self.steps) % VERIFY_EVERY == 0:
            self._verify()

    # --- What workers do --------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """A worker does all that some steps need, with nothing between."""
        self._wait_until_due()
        taken = self._take(self.draw(st.sampled_from(HOLDERS)), self.draw(st.integers(1, 3)))
        for one in taken:
            self._run(one, self.draw(self._words(one)))
        self._record(taken)

    def _claim(self) -> None:
        """A worker takes work and keeps it for later."""
        if self.draw(st.booleans()):
            self._wait_until_due()
        self._take(self.draw(st.sampled_from(HOLDERS)), self.draw(st.integers(1, 3)))

    def _go_on(self) -> None:
        """A worker runs or records what it holds, even if its lease was rescued long ago."""
        one = self.held[self.draw(st.integers(0, len(self.held) - 1), label="held")]
        if one.ran is None:
            self._run(one, self.draw(self._words(one)))
            return
        which = self.draw(st.sampled_from(["this", "all", "all", "all, and again"]))
        ran = [other for other in self.held if other.holder == one.holder and other.ran is not None]
        self._record([one] if which == "this" else ran, again=which == "all, and again")

    def _overtake(self) -> None:
        """One worker is taken for dead while it works, and the other takes over what it had."""
        one, other = self.draw(st.permutations(HOLDERS))
        self._wait_until_due()
        self._take(one, 3)
        self._look_for_silence(0.0)
        self._look_for_silence(claims.RESCUE_SECONDS)
        self._take(other, 3)

    def _rescue(self) -> None:
        """The rescuer looks twice; between, a while passes, and one of the workers beats, or none does."""
        self._look_for_silence(0.0)
        alive = self.draw(st.sampled_from([None, None, *HOLDERS]))
        ours = [one.work.case_id for one in self.held if one.holder == alive]
        if alive is not None and ours:
            self._did("beat", claims.beat(holder=alive, case_ids=ours))
        self._look_for_silence(self.draw(st.sampled_from([1.0, *[claims.RESCUE_SECONDS] * 3, 100.0])))

    def _stop(self) -> None:
        """A worker stops with what it holds; a good one returns the model calls that it cuts off."""
        holder = self.draw(st.sampled_from(sorted({one.holder for one in self.held})))
        cut = [one.work for one in self.held if one.holder == holder and one.ran is None]
        self.held = [one for one in self.held if one.holder != holder]
        calls = [(work.case_id, work.epoch) for work in cut if isinstance(work, ToPropose)]
        self._did("stop")
        if self.draw(st.booleans()):
            returned = claims.give_back(calls, settings=self.settings, now=self._time(), holder=holder)
            self._did("give_back", returned)

    def _set_the_clock(self) -> None:
        """Time passes, or somebody sets the clock; whatever passed its deadline is escalated."""
        self.now += self.draw(st.sampled_from(CLOCK_STEPS))
        self._did("set_the_clock")
        self._did("expire", claims.expire(settings=self.settings, now=self._time()))
        self._did("straighten", claims.straighten(now=self._time()))

    # --- What people do ---------------------------------------------------------------------------------------------

    def _act(self) -> None:
        """Somebody who most often may does what can be done with a case where it stands."""
        case = self._one_of(self._in_hands())
        getattr(self, f"_{self.draw(st.sampled_from(HANDS[_of(case)]), label='wish')}")(case)

    def _meddle(self) -> None:
        """Somebody does anything with any case; or leaves, or comes back."""
        case = self._one_of(list(self.cases.values()))
        getattr(self, f"_{self.draw(st.sampled_from(WISHES), label='wish')}")(case)

    def _submit(self, who: Who | None = None, about: str = "", key: str | None = "") -> None:
        """A request; with a key that was used before, it is the same again or is refused."""
        who = who or self._somebody(self.store.submitter, self.store.other_submitter, self.store.reviewer)
        about = about or self.draw(st.sampled_from(ABOUT))
        key = self.draw(st.sampled_from("ab")) if key == "" else key
        name = f"A-{next(self.fresh)}" if about == "an order of its own" else "A-0"
        order = drive.request().orders[0].model_copy(update={"id": name} | (SURE if name != "A-0" else {}))
        with self._trying("submit"):
            email = "nora@demo.example" if about == "a letter" else None
            body = drive.request(orders=[order] if "order of" in about else [], email=email)
            made = drive.submit(self.store, who, body, key=key)
            assert made.duplicate == (made.case_id in self.submitted)
            assert self.submitted.setdefault(made.case_id, made.number) == made.number

    def _decide(self, case: Case) -> None:
        verdict = self.draw(st.sampled_from([one for one in Verdict if one is not Verdict.APPROVE]))
        who = self._somebody(self.store.reviewer, self.store.lead)
        reply = self.draw(st.sampled_from(["", "We are sorry."])) if verdict is Verdict.REJECT else ""
        with self._trying(verdict):
            done = actions.decide(case.id, verdict, actor=who, settings=self.settings, note="Because.", reply=reply)
            self.told.append(done)

    def _approve(self, case: Case) -> None:
        """As proposed, or with values of the reviewer's own; sometimes on a page that was left open."""
        who = self._somebody(self.store.reviewer, self.store.lead, self.store.other_lead)
        how = self.draw(st.sampled_from(["as proposed", "a part", "a part", "nothing", "on an old page"]))
        edited = {"a part": {"verdict": "refund_in_part", "amount_minor": 2500}, "nothing": DECLINED}.get(how)
        values = drive.proposal(**edited).model_dump(mode="json") if edited else None
        version = case.version - (how == "on an old page")
        with self._trying("approve"):
            done = actions.decide(
                case.id, Verdict.APPROVE, actor=who, settings=self.settings, values=values, version=version
            )
            assert how != "on an old page", "a decision about an older version of the case was taken"
            self.told.append(done)

    def _take_by_hand(self, case: Case) -> None:
        who = self._somebody(self.store.lead)
        with self._trying("take_by_hand"):
            done = actions.decide(case.id, Verdict.MANUAL, actor=who, settings=self.settings, note="By hand.")
            self.told.append(done)

    def _answer(self, case: Case) -> None:
        who = self._somebody(*self._submitter_of(case), self.store.lead)
        with self._trying("answer"):
            text = f"Answer {next(self.fresh)}."
            self.told.append(actions.answer(case.id, text, actor=who, settings=self.settings))
            self.answers.append(text)

    def _withdraw(self, case: Case) -> None:
        who = self._somebody(*self._submitter_of(case), self.store.lead)
        with self._trying("withdraw"):
            self.told.append(actions.withdraw(case.id, actor=who))

    def _take_back(self, case: Case) -> None:
        who = self._somebody(self.store.lead, self.store.reviewer)
        with self._trying("take_back"):
            self.told.append(actions.take_back(case.id, actor=who, settings=self.settings))

    def _reopen(self, case: Case) -> None:
        who = self._somebody(self.store.lead)
        with self._trying("reopen"):
            self.told.append(actions.reopen(case.id, "Look again.", actor=who, settings=self.settings))

    def _retry(self, case: Case) -> None:
        who = self._somebody(self.store.lead, self.store.other_lead)
        with self._trying("retry"):
            self.told.append(actions.retry(case.id, actor=who, settings=self.settings))

    def _accept(self, case: Case) -> None:
        who = self._somebody(self.store.lead, self.store.other_lead)
        with self._trying("accept"):
            self.told.append(actions.accept(case.id, "It may stand.", actor=who))

    def _roll_back(self, case: Case) -> None:
        who = self._somebody(self.store.lead, self.store.other_lead)
        with self._trying("roll_back"):
            self.told.append(actions.roll_back(case.id, "It was wrong.", actor=who))

    def _settle(self, case: Case) -> None:
        """Leads look up what the receiver has, once nothing can be on its way to it any more, and say so."""
        self.held = [one for one in self.held if one.ran is not None or one.work.case_id != case.id]
        doubtful = [one for one in self._effects() if one.case_id == case.id and one.state == "in_doubt"]
        is_there = any(self.letters.sent[one.key] or self.ledger.find(key=one.key) for one in doubtful)
        truth = Finding.APPLIED if is_there else Finding.NOT_APPLIED
        finding = self.draw(st.sampled_from([truth, truth, Finding.RESEND]))
        one, other = self.store.lead, self.store.other_lead
        who_looks = {"both": (one, other), "one, and again": (one, one), "the other": (other,)}
        for who in who_looks[self.draw(st.sampled_from(["both", *who_looks]))]:
            with self._trying("settle"):
                self.told.append(settling.settle(case.id, finding, "I looked it up.", actor=who))

    def _question(self, case: Case) -> None:
        who = self._somebody(self.store.lead, self.store.other_lead)
        with self._trying("question"):
            self.told.append(settling.question(case.id, "I am not sure.", actor=who))

    def _leave(self, _: Case, active: bool = False) -> None:
        few = {who.name: who for who in (self.store.submitter, self.store.reviewer, self.store.other_lead)}
        who = few[self.draw(st.sampled_from(list(few)), label="who")]
        people.set_active(who.id, active, actor=self.store.administrator)
        self._did("return" if active else "leave")

    def _return(self, case: Case) -> None:
        self._leave(case, active=True)

    # --- What must always be ----------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_lost_and_the_books_agree(self) -> None:
        before = self.cases
        with database.reading() as session:
            self.cases = {one.id: one for one in session.exec(select(Case).order_by(col(Case.number))).all()}
        assert {one.id: one.number for one in self.cases.values()} == self.submitted
        for one in self.cases.values():
            assert one.id not in before or one.version >= before[one.id].version, f"case {one.number} went back"
            open_ = one.state not in (State.FAILED, *ENDED)
            assert open_ or one.rollback_decision is None, f"a rollback was wished for, and case {one.number} is over"
        self._compare_with_the_books()

    def _compare_with_the_books(self) -> None:
        """What is said of each case is what the receiver did; the names are those of the protocol's predicates."""
        books, moved = self.ledger.by_key(), Counter[tuple[UUID, str]]()
        live = {one.key for one in self._effects() if one.state != "void"}  # A key that never left is used again.
        for effect in self._effects():
            known = effect.state not in ("sending", "in_doubt") and (effect.state != "void" or effect.key not in live)
            if effect.message and known:
                arrived = self.letters.sent[effect.key]
                assert arrived == (effect.state == "applied"), f"a letter is {effect.state} and came {arrived} times"
            if effect.key in books and effect.state != "void":
                moved[effect.case_id, effect.kind] += 1
        assert sum(moved.values()) == len(books), "the ledger has a transfer that no effect of ours is for"
        assert max(self.letters.sent.values(), default=0) <= 1, "the customer got a letter twice"
        for case in self.cases.values():
            credited, taken_back = moved[case.id, "apply"], moved[case.id, "undo"]
            said = f"case {case.number} is {case.state} ({case.outcome}), {credited} credited, {taken_back} taken back"
            assert credited <= 1, f"applied twice: {said}"
            assert taken_back <= credited, f"taken back twice: {said}"
            if case.state == State.COMPLETED and case.outcome == "applied":
                assert (credited, taken_back) == (1, 0), f"says completed: {said}"
            elif case.state == State.ROLLED_BACK:
                was = 1 if case.outcome == "applied" else 0  # Of a reply alone there is only a correction.
                assert (credited, taken_back) == (was, was), f"says rolled back: {said}"
            elif case.state in (State.FAILED, *ENDED):
                assert credited == 0, f"says that nothing was applied: {said}"

    def teardown(self) -> None:
        with self._open:
            if sys.exc_info()[0] is None and self.cases:
                self._verify()
                self._come_to_rest()
                self._verify()
                self._find_what_was_told_and_count()

    def _verify(self) -> None:
        report = verify.verify(ledger=self.ledger)
        assert report.holds, report.as_text()
        self.tally.verified += 1

    def _come_to_rest(self) -> None:
        """From wherever the run ended, a few quiet days bring every case to a person or to an end."""
        zombies, self.held = [one for one in self.held if one.ran is not None], []
        self._look_for_silence(0.0)
        self._look_for_silence(claims.RESCUE_SECONDS)
        for _ in range(50):
            self.nothing_is_lost_and_the_books_agree()
            if not self._standing(*lifecycle.DUE):
                break
            self._work_quietly()
        for one in zombies:
            self._record([one])
        self.nothing_is_lost_and_the_books_agree()
        restless = [f"case {one.number} is {_of(one)}" for one in self._standing(*lifecycle.DUE, *lifecycle.IN_WORK)]
        assert not restless, f"what does not come to rest: {restless}"

    def _find_what_was_told_and_count(self) -> None:
        trail = self._trail()
        with database.reading() as session:
            kept = session.exec(select(Answer.text)).all()
        assert set(self.answers) <= set(kept), "an answer that was taken is not there any more"
        there = {(one.case_id, one.case_version, one.to_state, one.to_step) for one in trail}
        for done in self.told:
            assert (done.case_id, done.version, done.state, done.step) in there, f"somebody was told {done}"
        for one in trail:
            self.tally.moves[one.kind, _place(one.from_state, one.from_step), _place(one.to_state, one.to_step)] += 1

    # --- How it is done ---------------------------------------------------------------------------------------------

    def _standing(self, *places: Place) -> list[Case]:
        return [one for one in self.cases.values() if _of(one) in places]

    def _one_of(self, found: Sequence[Case]) -> Case:
        number = self.draw(st.sampled_from([one.number for one in found]), label="case")
        return next(one for one in found if one.number == number)

    def _in_hands(self) -> list[Case]:
        return [one for one in self._standing(*HANDS) if one.outcome != "manual"]

    def _somebody(self, *usual: Who) -> Who:
        """Most often one of these, sometimes anybody else."""
        everyone = {who.name: who for who in self._everyone()}
        return everyone[self.draw(st.sampled_from([*(who.name for who in usual * 6), *everyone]), label="who")]

    def _everyone(self) -> list[Who]:
        s = self.store
        return [s.submitter, s.other_submitter, s.reviewer, s.lead, s.other_lead, s.administrator, s.auditor]

    def _submitter_of(self, case: Case) -> list[Who]:
        return [who for who in self._everyone() if who.id == case.submitted_by]

    def _effects(self) -> Sequence[Effect]:
        with database.reading() as session:
            return session.exec(select(Effect)).all()

    def _trail(self) -> Sequence[Event]:
        with database.reading() as session:
            return session.exec(select(Event).where(col(Event.case_version).is_not(None))).all()

    @contextmanager
    def _trying(self, what: str) -> Iterator[None]:
        try:
            yield
        except ActionError:
            self.tally.refused[str(what)] += 1
        else:
            self._did(str(what))

    def _time(self) -> datetime:
        """The time of day, which goes on whenever somebody looks."""
        self.now += timedelta(milliseconds=1)
        return self.now

    def _did(self, what: str, times: int = 1) -> None:
        self.tally.did[what] += times

    def _wait_until_due(self) -> None:
        with database.reading() as session:
            due = cases.next_due(session)
            shut = [
                at
                for lane in lanes.every(session)
                if lane.stopped_at is not None and lane.name in lanes.waiting(session, due_by=self.now)
                for at in (lane.until, lane.probe_until if lane.probe is not None else None)
                if at is not None
            ]
        self.now = max([self.now, *([due] if due is not None else []), *shut])

    def _resume_lanes(self) -> None:
        """A lead looks at what the program paused, and lets it go on."""
        with database.reading() as session:
            paused = [lane.name for lane in lanes.every(session) if lane.paused_at is not None]
        for name in paused:
            admission.resume(name, "Compared.", actor=self.store.lead)

    def _take(self, holder: str, limit: int) -> list[Held]:
        taken = drive.claim(self.settings, now=self._time(), limit=limit, holder=holder)
        held = [Held(holder, work) for work in taken]
        self.held += held
        self._did("claim", len(held))
        return held

    def _work_quietly(self) -> None:
        self._resume_lanes()
        self._wait_until_due()
        claims.expire(settings=self.settings, now=self._time())  # What is late is not asked for any more.
        taken = self._take(HOLDERS[0], limit=10)
        for one in taken:
            self._run(one, "refunds" if isinstance(one.work, ToPropose) else "apply")
        self._record(taken)

    def _words(self, one: Held) -> st.SearchStrategy[str]:
        step = Step.PROPOSE if isinstance(one.work, ToPropose) else Step(one.work.kind)
        return st.sampled_from(self.words[step])

    def _run(self, one: Held, word: str) -> None:
        ask = world.MODEL[word] if isinstance(one.work, ToPropose) else drive.says()
        is_well = isinstance(one.work, ToPropose) or word == "apply"
        silent = not is_well and self.draw(st.booleans(), label="silent")  # It cannot be asked what it holds.
        receiver = world.Receiver(self.ledger, word, silent=silent)
        mail = world.Mail(self.letters, word)
        one.ran = drive.run(one.work, self.settings, ask, {"ledger": receiver, "mail": mail})

    def _record(self, those: Sequence[Held], *, again: bool = False) -> None:
        if not those:
            return
        runs = [one.ran for one in those if one.ran is not None]
        ours = record.record_all(runs, holder=those[0].holder, settings=self.settings, now=self._time())
        if again:  # As when the answer of the store got lost: nothing moves a second time.
            moves = len(self._trail())
            record.record_all(runs, holder=those[0].holder, settings=self.settings, now=self._time())
            assert len(self._trail()) == moves
        self.held = [one for one in self.held if one not in those]
        self._did("record", sum(ours))
        self._did("record late", len(ours) - sum(ours))

    def _look_for_silence(self, seconds: float) -> None:
        self.monotonic += seconds
        rescued = claims.rescue(self.watch, settings=self.settings, now=self._time(), monotonic=self.monotonic)
        self._did("rescue", rescued)


SURE = {"payments": [], "items": [Item(name="Lamp", price_minor=4990)]}  # Nothing is left to doubt: no person decides.
DECLINED: dict[str, Any] = {"verdict": "decline", **world.NO_REFUND}


def _of(case: Case) -> Place:
    return Place(State(case.state), Step(case.step))


def _place(state: str | None, step: str | None) -> Place | None:
    return Place(State(state), Step(step)) if state and step else None
