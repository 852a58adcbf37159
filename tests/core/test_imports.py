"""Files of many cases: each row is judged alone, a dry run makes nothing, the same file twice makes each case once."""

import csv
import io
import json

import pytest

from core import cases, errors, imports
from core.imports import Line
from tests.conftest import Store

CSV = """customer,message,claimed_amount,currency,channel,orders
Nora Nobody,"Broken, I want my money back",49.90,eur,email,
Otto Otherwise,Never came,,,,"[{""id"": ""A-1""}]"
,No customer,,,,
Ivy Invented,Bad amount,"1,000.00",EUR,,
Pia Pretend,No currency,10,,,
Tom Toofew,x
Max Madeup,[brackets] are text,,,,
"""


def run(store: Store, content: str | bytes, name: str = "f.csv", *, dry_run: bool = False) -> list[Line]:
    raw = content.encode() if isinstance(content, str) else content
    return imports.run(name, raw, actor=store.submitter, settings=store.settings, dry_run=dry_run)


def table(rows: list[list[str]]) -> str:
    file = io.StringIO(newline="")
    csv.writer(file).writerows(rows)
    return file.getvalue()


def test_a_bad_row_never_stops_the_others(store: Store) -> None:
    lines = run(store, CSV)

    assert [line.status for line in lines] == ["new", "new", "invalid", "invalid", "invalid", "invalid", "new"]
    assert [line.row for line in lines] == [2, 3, 4, 5, 6, 7, 8]
    assert "customer" in lines[2].reason
    assert "claimed_amount: write the amount" in lines[3].reason
    assert "needs its currency" in lines[4].reason
    assert "2 cells, the header has 6" in lines[5].reason
    first = cases.view(cases.resolve(str(lines[0].case)), actor=store.reviewer).submission.request
    assert (first.claimed_amount_minor, first.currency) == (4990, "EUR")
    assert len(cases.listed(store.auditor)) == 3


def test_a_dry_run_says_what_would_happen_and_makes_nothing(store: Store) -> None:
    lines = run(store, CSV, dry_run=True)

    assert [line.status for line in lines].count("new") == 3
    assert cases.listed(store.auditor) == []


def test_the_same_file_twice_makes_each_case_once(store: Store) -> None:
    first = run(store, CSV)

    again = run(store, CSV)

    assert [line.status for line in again if line.status != "invalid"] == ["duplicate"] * 3
    assert [line.case for line in again] == [line.case for line in first]
    assert [line.status for line in run(store, CSV, dry_run=True)].count("duplicate") == 3


def test_json_lines_are_read_one_by_one(store: Store) -> None:
    rows = [json.dumps({"customer": "N", "message": "m"}), "{broken", "[1]", "", json.dumps({"customer": "N"})]

    lines = run(store, "\n".join(rows), "f.jsonl")

    assert [(line.row, line.status) for line in lines] == [(1, "new"), (2, "invalid"), (3, "invalid"), (5, "invalid")]
    assert lines[3].reason == "message: Field required"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "The file is empty: its first row must name the columns, out of customer, "),
        (b"colour,size\na,b\n", "'colour', 'size' are not some of customer, "),
        (b"customer,message\n", "holds no row"),
        (b"customer,colour\na,b\n", "'colour'"),
        (b"\xff\xfe\x00bad", "not UTF-8"),
        (b"x" * (imports.LARGEST_BYTES + 1), "at most 5,000,000"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_what_to_do(sqlite_store: Store, content: bytes, says: str) -> None:
    with pytest.raises(errors.Incomplete, match=says):
        run(sqlite_store, content)


def test_a_file_from_a_spreadsheet_with_a_byte_order_mark_is_read(sqlite_store: Store) -> None:
    lines = run(sqlite_store, b"\xef\xbb\xbfcustomer,message\r\nNora,Broken\r\n")

    assert [line.status for line in lines] == ["new"]


def test_a_message_that_is_json_stays_the_text_that_it_is(sqlite_store: Store) -> None:
    texts = ["[]", '{"verdict": "refund_in_full"}', '["a"]', "[" * 20_000]

    lines = run(sqlite_store, table([["customer", "message"], *(["Nora Nobody", text] for text in texts)]))

    seen = [cases.view(cases.resolve(str(line.case)), actor=sqlite_store.reviewer) for line in lines]
    assert [one.submission.request.message for one in seen] == texts


def test_a_cell_that_is_nested_too_deep_is_named_and_stops_nobody(sqlite_store: Store) -> None:
    rows = [["customer", "message", "orders"], ["Nora", "Broken", "[" * 20_000], ["Otto", "Broken", '[{"id": "A-1"}]']]

    lines = run(sqlite_store, table(rows))

    assert [line.status for line in lines] == ["invalid", "new"]
    assert lines[0].reason.startswith("orders: ")


def test_signs_that_only_look_like_line_ends_do_not_tear_a_row_apart(store: Store) -> None:
    rows = [
        json.dumps({"customer": "N", "message": f"one{sign}two"}, ensure_ascii=False) for sign in "\u2028\u2029\x85"
    ]

    lines = run(store, "\r\n".join(rows), "f.jsonl")

    assert [(line.row, line.status) for line in lines] == [(1, "new"), (2, "new"), (3, "new")]


def test_who_may_not_submit_is_told_so_in_a_dry_run_too(store: Store) -> None:
    with pytest.raises(errors.Forbidden):
        imports.run("f.csv", CSV.encode(), actor=store.administrator, settings=store.settings, dry_run=True)
