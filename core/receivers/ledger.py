"""The built-in receiver: a store-credit ledger with double entry, in a store of its own.

Every transfer debits one account and credits another by the same amount, so the sum over all accounts is zero per
currency. A key is applied once: sent again with the same payload it answers with the same receipt, with another payload
it is refused. A transfer can be reversed once.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    MetaData,
    String,
    Table,
    func,
    insert,
    inspect,
    select,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel.sql.sqltypes import UTCDateTime

from core import audit, clock, money
from core.outcomes import Answer, Receipt
from core.receivers import USUAL_RETENTION, Sending
from core.workflow import Reversibility
from storage import copies, database, files

FUND = "refunds"  # The account that pays; its balance is what was refunded in all, as a negative number.

_metadata = MetaData()
_transfers = Table(
    "ledger_transfers",
    _metadata,
    Column("key", String(64), primary_key=True),
    Column("reference", String(40), nullable=False, unique=True),
    Column("kind", String(8), nullable=False),
    Column("reverses", String(40), ForeignKey("ledger_transfers.reference"), unique=True),
    Column("payload_digest", String(64), nullable=False),
    Column("references", String(400), nullable=False),
    Column("holder", String(400), nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("at", UTCDateTime, nullable=False),
)
_entries = Table(
    "ledger_entries",
    _metadata,
    Column("transfer_key", String(64), ForeignKey("ledger_transfers.key"), primary_key=True),
    Column("account", String(400), primary_key=True),
    Column("amount_minor", BigInteger, nullable=False),  # Credits are positive, debits negative.
    Column("currency", String(3), nullable=False),
    Index("ix_ledger_entries_account", "account"),
)


@dataclass(frozen=True)
class Transfer:
    """One line of the ledger as people read it. Amounts in minor units."""

    key: str
    reference: str
    kind: str
    reverses: str | None
    references: str
    account: str
    holder: str
    amount_minor: int
    currency: str
    at: datetime


def _absent(url: str) -> database.StoreError:
    return database.StoreError(
        f"there is no ledger at {database.shown(url)}, and an empty one would pay a second time what the lost one "
        "knows. If it lives elsewhere, set COUNTERSIGN_LEDGER_URL to it (sqlite:////…, four slashes and the path). If "
        "it was lost, `countersign restore FOLDER --with-ledger` brings its copy back into an empty COUNTERSIGN_HOME"
    )


class Ledger:
    """The receiver called `ledger`.

    It is made with its installation and never again by itself: an empty ledger in the place of one that was lost, or
    that is elsewhere, has forgotten every key, and would pay a second time.
    """

    name = "ledger"
    reversibility = Reversibility.REVERSIBLE
    retention = USUAL_RETENTION  # It forgets none; a longer horizon would only put people's questions off.
    keeps_keys = True

    def __init__(self, url: str, *, create: bool = False) -> None:
        path = database.sqlite_path(url)
        if path is not None:
            files.require_local(path)
            if create:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif files.is_missing(path):
                raise _absent(url)
        self._store = database.engines(url)
        try:
            if create:
                _metadata.create_all(self._store.writer)
            is_there = inspect(self._store.reader).has_table(_transfers.name)
        except DBAPIError as error:
            words = str(error.orig).splitlines()[0] if error.orig else type(error).__name__
            raise database.StoreError(f"the ledger at {database.shown(url)} cannot be opened: {words}") from error
        if not is_there:
            self.close()
            raise _absent(url)

    def close(self) -> None:
        self._store.close()

    def apply(self, sending: Sending) -> Answer:
        """Credit an account, once for this key."""
        return self._send(sending.key, sending.payload, self._transfer)

    def undo(self, sending: Sending) -> Answer:
        """Reverse an earlier transfer, once, by a transfer of its own."""
        return self._send(sending.key, sending.payload, self._reversal)

    def find(self, *, key: str) -> Receipt | None:
        """The receipt of the transfer with this key."""
        with self._store.reader.connect() as connection:
            row = connection.execute(select(_transfers).where(_transfers.c.key == key)).mappings().first()
        return _receipt(row) if row else None

    def holdings(self) -> Iterator[Receipt]:
        """The receipts of all transfers: the ledger forgets none."""
        with self._store.reader.connect() as connection:
            for row in connection.execute(select(_transfers), execution_options={"yield_per": 1_000}).mappings():
                yield _receipt(row)

    def transfers(self, *, limit: int = 200, below: str | None = None) -> Sequence[Transfer]:
        """The newest transfers first; with `below` those older than the one with this reference."""
        statement = (
            select(_transfers, _entries.c.account)
            .join(_entries, _entries.c.transfer_key == _transfers.c.key)
            .where(_entries.c.account != FUND)
            .order_by(_transfers.c.at.desc(), _transfers.c.reference.desc())
            .limit(limit)
        )
        if below is not None:
            at = select(_transfers.c.at).where(_transfers.c.reference == below).scalar_subquery()
            older = (_transfers.c.at == at) & (_transfers.c.reference < below)
            statement = statement.where((_transfers.c.at < at) | older)
        with self._store.reader.connect() as connection:
            rows = connection.execute(statement).mappings().all()
        return [Transfer(**{name: row[name] for name in Transfer.__dataclass_fields__}) for row in rows]

    def reversals(self, *, of: Sequence[str]) -> dict[str, str]:
        """The reference of the transfer that reversed each of these, where one did."""
        statement = select(_transfers.c.reverses, _transfers.c.reference).where(_transfers.c.reverses.in_(of))
        with self._store.reader.connect() as connection:
            return {str(reversed_): str(by) for reversed_, by in connection.execute(statement)}

    def credited(self) -> dict[str, int]:
        """What stands credited in all, in minor units per currency: what the fund paid, less what came back."""
        statement = (
            select(_entries.c.currency, func.sum(_entries.c.amount_minor))
            .where(_entries.c.account == FUND)
            .group_by(_entries.c.currency)
            .order_by(_entries.c.currency)
        )
        with self._store.reader.connect() as connection:
            return {str(currency): -int(total) for currency, total in connection.execute(statement)}

    def by_key(self) -> dict[str, Transfer]:
        """Every transfer by its key: what `verify` compares with the store."""
        return {one.key: one for one in self.transfers(limit=10_000_000)}

    def balances(self) -> dict[tuple[str, str], int]:
        """The balance of each account and currency, in minor units; they add up to zero per currency."""
        statement = select(_entries.c.account, _entries.c.currency, func.sum(_entries.c.amount_minor)).group_by(
            _entries.c.account, _entries.c.currency
        )
        with self._store.reader.connect() as connection:
            return {(account, currency): int(total) for account, currency, total in connection.execute(statement)}

    def copy_to(self, url: str) -> int:
        """Copy every transfer into the ledger at `url`, which must be empty or hold just these already. Returns how
        many. Raises `StoreError`, and then nothing was written there."""
        tables = (_transfers, _entries)
        there = Ledger(url, create=True)
        try:
            with self._store.reader.connect() as source, there._store.writer.begin() as target:
                here = copies.contents(source, tables=tables)
                if copies.contents(target, tables=tables)[_transfers.name].rows == 0:
                    copies.copy(source, target, tables=tables, said=lambda _table, _rows: None)
                if copies.contents(target, tables=tables) != here:
                    raise database.StoreError(f"{database.shown(url)} holds another ledger; nothing was written there")
        finally:
            there.close()
        return here[_transfers.name].rows

    def _send(self, key: str, payload: str, kind: Any) -> Answer:
        try:
            body = json.loads(payload)
            with self._store.writer.begin() as connection:
                row = connection.execute(select(_transfers).where(_transfers.c.key == key)).mappings().first()
                if row is None:
                    answer: Answer = kind(connection, key, body, audit.digest({"payload": payload}))
                    return answer
                if row["payload_digest"] != audit.digest({"payload": payload}):
                    return Answer("broken", detail="the key was already used for another payload")
                return Answer("applied", receipt=_receipt(row))
        except (ValueError, KeyError, TypeError):
            return Answer("rejected", detail="the payload cannot be read")
        except IntegrityError:
            return Answer("unknown", detail="another transfer with this key or of this reversal came at the same time")
        except DBAPIError:
            return Answer("unknown", detail="the ledger's store did not answer")

    def _transfer(self, connection: Any, key: str, body: dict[str, Any], digest: str) -> Answer:
        amount, currency = body["amount_minor"], body["currency"]
        if type(amount) is not int or not 0 < amount <= money.LARGEST_MINOR:
            return Answer("rejected", detail="the amount must be a whole number of minor units above zero")
        if currency not in money.CURRENCIES:
            return Answer("rejected", detail="the currency is not known")
        account, holder = str(body["account"]), str(body.get("holder") or "")
        references = ", ".join(str(one) for one in body.get("references") or [])
        row = self._write(
            connection, key, digest, "apply", None, references, holder, amount, currency, f"{account}:{holder}"
        )
        return Answer("applied", receipt=_receipt(row))

    def _reversal(self, connection: Any, key: str, body: dict[str, Any], digest: str) -> Answer:
        statement = (
            select(_transfers, _entries.c.account)
            .join(_entries, _entries.c.transfer_key == _transfers.c.key)
            .where(_transfers.c.reference == body["reverses"], _entries.c.account != FUND)
        )
        original = connection.execute(statement).mappings().first()
        if original is None or original["kind"] != "apply":
            return Answer("rejected", detail="there is no such transfer to reverse")
        reversed_already = select(_transfers.c.key).where(_transfers.c.reverses == original["reference"])
        if connection.execute(reversed_already).first() is not None:
            return Answer("rejected", detail="this transfer was reversed already")
        if (body["amount_minor"], body["currency"]) != (original["amount_minor"], original["currency"]):
            return Answer("rejected", detail="a transfer is reversed whole, in its own currency")
        row = self._write(
            connection, key, digest, "undo", original["reference"], original["references"], original["holder"],
            -original["amount_minor"], original["currency"], original["account"],
        )  # fmt: skip
        return Answer("applied", receipt=_receipt(row))

    def _write(
        self,
        connection: Any,
        key: str,
        digest: str,
        kind: str,
        reverses: str | None,
        references: str,
        holder: str,
        amount_minor: int,
        currency: str,
        account: str,
    ) -> dict[str, Any]:
        row = {
            "key": key, "reference": f"L-{key[:16]}", "kind": kind, "reverses": reverses, "payload_digest": digest,
            "references": references[:400], "holder": holder[:400], "amount_minor": abs(amount_minor),
            "currency": currency, "at": clock.now(),
        }  # fmt: skip
        connection.execute(insert(_transfers), row)
        both = [(account[:400], amount_minor), (FUND, -amount_minor)]
        connection.execute(
            insert(_entries),
            [{"transfer_key": key, "account": a, "amount_minor": m, "currency": currency} for a, m in both],
        )
        return row


def _receipt(row: Any) -> Receipt:
    body = {
        "amount_minor": row["amount_minor"], "currency": row["currency"], "at": row["at"].isoformat(),
        "payload_digest": row["payload_digest"],
    }  # fmt: skip
    return Receipt(key=row["key"], reference=row["reference"], body=body)
