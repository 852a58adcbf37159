"""Refunds that a system of your own pays: what `core/workflows/refunds.py` decides, sent to the receiver `http`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from core.workflow import Effect, Submission
from core.workflows.refunds import LEDGER, RefundProposal, RefundRequest, Refunds


class Ours(Refunds):
    name, title = "ours", "Refunds by our own system"

    def effects(self, submission: Submission[RefundRequest], values: RefundProposal) -> list[Effect]:
        return [replace(one, receiver="http") for one in super().effects(submission, values)]

    def undo(self, effect: Effect, receipt: Mapping[str, Any]) -> Effect | None:
        wanted = super().undo(replace(effect, receiver=LEDGER), receipt)
        return None if wanted is None else replace(wanted, receiver="http")
