"""Many cases from one file: CSV or JSON lines, looked at row by row before anything is made.

A bad row never stops the others. A row's key is the digest of the file and the row's number, so that the same file
sent twice makes each case once.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel

from core import errors, money, people, submissions, workflow
from core.permissions import Act, Who
from core.settings import Settings
from core.workflow import Mark
from storage import cases, database

LARGEST_BYTES = 5_000_000
MOST_ROWS = 10_000


@dataclass(frozen=True)
class Line:
    """One row of the file: new, a duplicate of a case that this very row made, or invalid with the reason."""

    row: int  # As a spreadsheet counts: the header of a CSV is row 1.
    status: Literal["new", "duplicate", "invalid"]
    reason: str = ""
    case: int | None = None
    similar: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "row": self.row, "status": self.status, "reason": self.reason, "case": self.case,
            "similar": list(self.similar),
        }  # fmt: skip


def run(
    name: str, content: bytes, *, actor: Who, settings: Settings, workflow_name: str = "refunds", dry_run: bool
) -> list[Line]:
    """Submit every row of the file, or with `dry_run` say what would become of each and make nothing.

    Raises `Incomplete` when the file as a whole cannot be read: too large, not UTF-8, no such columns.
    """
    if len(content) > LARGEST_BYTES:
        raise errors.Incomplete(f"The file has {len(content):,} bytes; at most {LARGEST_BYTES:,} are read.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise errors.Incomplete("The file is not UTF-8 text. Save it as CSV UTF-8 and try again.") from None
    model = workflow.get(workflow_name).Request
    rows = list(_json_lines(text) if name.lower().endswith((".jsonl", ".ndjson", ".json")) else _csv(text, model))
    if not rows:
        raise errors.Incomplete("The file holds no row.")
    if len(rows) > MOST_ROWS:
        raise errors.Incomplete(f"The file holds {len(rows):,} rows; at most {MOST_ROWS:,} are read at once.")
    with database.reading() as session:
        people.allow(people.fresh(session, actor), Act.SUBMIT)
    digest = hashlib.sha256(content).hexdigest()[:32]
    return [
        _line(number, body, f"file:{digest}:{number}", actor, settings, workflow_name, dry_run) for number, body in rows
    ]


def _line(
    number: int,
    body: Mapping[str, Any] | str,
    key: str,
    actor: Who,
    settings: Settings,
    workflow_name: str,
    dry_run: bool,
) -> Line:
    if isinstance(body, str):
        return Line(number, "invalid", body)
    try:
        request = submissions.read_request(workflow_name, body)
    except errors.Incomplete as error:
        return Line(number, "invalid", "; ".join(f"{path}: {why}" for path, why in error.fields.items()) or str(error))
    if dry_run:
        with database.reading() as session:
            earlier = cases.by_submission_key(session, person_id=actor.id, key=key)
        return Line(number, "duplicate" if earlier else "new", case=earlier.number if earlier else None)
    made = submissions.submit(request, actor=actor, settings=settings, workflow_name=workflow_name, key=key)
    return Line(number, "duplicate" if made.duplicate else "new", case=made.number, similar=made.similar)


def _json_lines(text: str) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            body = json.loads(line)
        except (ValueError, RecursionError):
            yield number, "the line is not JSON"
            continue
        yield number, body if isinstance(body, dict) else "the line is not a JSON object"


def _csv(text: str, model: type[BaseModel]) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    csv.field_size_limit(LARGEST_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise errors.Incomplete(f"The file is not CSV: {error}.") from None
    columns = {**{name: name for name in model.model_fields}, **_money_columns(model)}
    unknown = [name for name in header if name not in columns]
    if not any(header):
        raise errors.Incomplete(f"The file is empty: its first row must name the columns, out of {', '.join(columns)}.")
    if unknown:
        names = ", ".join(repr(name[:40]) for name in unknown)
        are = "is not one" if len(unknown) == 1 else "are not some"
        raise errors.Incomplete(f"The first row must name the columns; {names} {are} of {', '.join(columns)}.")
    number = 1
    while True:
        number += 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield number, f"the row cannot be read: {error}"
            return
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            yield number, f"the row has {len(cells)} cells, the header has {len(header)}"
            continue
        yield number, _body(model, columns, dict(zip(header, cells, strict=True)))


def _money_columns(model: type[BaseModel]) -> dict[str, str]:
    """`claimed_amount` for `claimed_amount_minor`: people write a decimal, the program keeps minor units."""
    return {name.removesuffix("_minor"): name for name in workflow.marked(model, Mark.MONEY)}


def _body(model: type[BaseModel], columns: Mapping[str, str], cells: Mapping[str, str]) -> Mapping[str, Any] | str:
    body: dict[str, Any] = {}
    money_columns = _money_columns(model)
    currency = cells.get("currency", "").strip().upper() or None
    if currency:
        body["currency"] = currency
    for column, cell in cells.items():
        name, value = columns[column], cell.strip()
        if not value or column == "currency":
            continue
        try:
            body[name] = _value(model, name, cell, currency if column in money_columns else None, column)
        except ValueError as error:
            return f"{column}: {error}"
    return body


def _value(model: type[BaseModel], name: str, cell: str, currency: str | None, column: str) -> Any:
    value = cell.strip()
    if name in workflow.marked(model, Mark.MONEY):
        if column != name:
            if currency is None:
                raise ValueError("an amount needs its currency in the column currency")
            return money.parse(value, currency)
        if not (value.isascii() and value.isdigit() and len(value) <= 15):
            raise ValueError("write whole minor units (cents), digits only")
        return int(value)
    if value[:1] in "[{" and not _is_text(model, name):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            pass  # The model says what is wrong with it.
    return cell


@cache
def _is_text(model: type[BaseModel], name: str) -> bool:
    """Whether the field holds a text: what a customer wrote stays a text, even where it is JSON as well."""
    schema = model.model_json_schema()["properties"][name]
    return any(part.get("type") == "string" for part in (schema, *schema.get("anyOf", ())))
