"""A whole receiver in one file, to copy: it takes signed requests, applies each key once, takes back, and can be asked.

It needs Starlette, standardwebhooks and sqlite3, and nothing of Countersign. Where it writes a row into `effects`, a
system of your own does what it does, in the same transaction. docs/receiver.md says what it promises to its caller.
"""

import hashlib
import hmac
import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from standardwebhooks import Webhook
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

TOLERANCE_SECONDS = 300  # A request signed longer ago, or so far in the future, is refused: far below the retention.
MOST_BYTES = 1_000_000  # Of a request.

_TABLES = (
    "CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY, epoch INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS effects (key TEXT PRIMARY KEY, kind TEXT NOT NULL, digest TEXT NOT NULL, "
    "reference TEXT NOT NULL UNIQUE, reverses TEXT UNIQUE, amount_minor INTEGER, currency TEXT, "
    "payload TEXT NOT NULL, at TEXT NOT NULL)",
)
_LOOPBACK = r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?"
_COLUMNS = "key, kind, reference, reverses, amount_minor, currency, at"


class Refused(Exception):
    """A no, with its status and a short code. Never a sentence: it could quote a customer."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


def app(secrets: Sequence[str], file: str, *, now: Callable[[], float] = time.time) -> Starlette:
    """The receiver as an ASGI application. Takes what is signed with any of `secrets` (one, or two while one is being
    replaced) and keeps its records in `file`. `now` is its clock, in seconds since 1970. Raises ValueError for a secret
    that is none."""
    return _Receiver(secrets, file, now).app


class _Receiver:
    def __init__(self, secrets: Sequence[str], file: str, now: Callable[[], float]) -> None:
        self._signing = [Webhook(secret) for secret in secrets]
        if not self._signing:
            raise ValueError("a receiver needs a secret")
        self._now = now
        self._file = file
        with self._transaction() as store:
            for table in _TABLES:
                store.execute(table)
        routes = [Route(f"/{kind}", self._endpoint, methods=["POST"]) for kind in ("apply", "undo", "find")]
        self.app = Starlette(routes=[*routes, Route("/log", self._log, methods=["GET"])])

    async def _endpoint(self, request: Request) -> JSONResponse:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_BYTES:
                return JSONResponse({"code": "too_long"}, 413)
        kind = request.url.path.rpartition("/")[2]
        try:
            asked = self._verified(request, body, kind)
            return JSONResponse(await run_in_threadpool(self._answer, kind, asked))
        except Refused as no:
            return JSONResponse({"code": no.code}, no.status)

    async def _log(self, request: Request) -> JSONResponse:
        """Everything that was applied, for people: it is only served to the machine itself."""
        # The name counts as well as the peer: a proxy on this machine, or a page in a browser here whose own name was
        # pointed at it, comes from this machine too.
        named = re.fullmatch(_LOOPBACK, request.headers.get("host", "").lower())
        if request.client is None or request.client.host not in ("127.0.0.1", "::1") or named is None:
            return JSONResponse({"code": "loopback_only"}, 403)
        return JSONResponse(await run_in_threadpool(self._entries))

    def _verified(self, request: Request, body: bytes, kind: str) -> dict[str, Any]:
        """What is asked, when it is signed by somebody who has a secret, freshly, for this very address."""
        key, at = request.headers.get("webhook-id", ""), request.headers.get("webhook-timestamp", "")
        try:
            text, signed_at = body.decode(), int(at) if re.fullmatch("[0-9]{1,12}", at) else -1
            expected = [one.sign(key, datetime.fromtimestamp(signed_at, UTC), text) for one in self._signing]
        except (ValueError, OverflowError, OSError):
            raise Refused(401, "not_signed") from None
        given = request.headers.get("webhook-signature", "").split()
        # Compared in constant time, so that nobody can guess his way to a signature.
        if not any(hmac.compare_digest(one.encode(), other.encode()) for one in expected for other in given):
            raise Refused(401, "not_signed")
        if abs(self._now() - signed_at) > TOLERANCE_SECONDS:
            raise Refused(400, "stale_timestamp")
        try:
            asked = json.loads(text)
        except ValueError:
            raise Refused(400, "not_json") from None
        if (
            not isinstance(asked, dict)
            or (asked.get("key"), asked.get("kind")) != (key, kind)
            or type(asked.get("epoch")) is not int
            or not re.fullmatch("[!-~]{1,255}", key)
        ):
            raise Refused(400, "not_an_envelope")
        return asked

    def _answer(self, kind: str, asked: dict[str, Any]) -> dict[str, Any]:
        key = asked["key"]
        with self._transaction() as store:
            if kind != "find":
                self._require_newest(store, key, asked["epoch"])
            held = store.execute(f"SELECT {_COLUMNS}, digest FROM effects WHERE key = ?", [key]).fetchone()
            if kind == "find":
                return _receipt(held) if held is not None else {"key": key, "state": "absent"}
            digest = _digest(kind, asked.get("payload"))
            if held is not None:
                if held["digest"] != digest:
                    raise Refused(422, "key_reused")
                return _receipt(held)  # Done before: the same receipt again, and nothing else.
            row = _applied(asked.get("payload")) if kind == "apply" else _undone(store, asked.get("payload"))
            at = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="seconds")
            reference, text = f"R-{token_hex(8)}", json.dumps(asked.get("payload"), ensure_ascii=False)
            store.execute(
                f"INSERT INTO effects ({_COLUMNS}, digest, payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    key,
                    kind,
                    reference,
                    row["reverses"],
                    row["amount_minor"],
                    row["currency"],
                    at,
                    digest,
                    text,
                ],
            )
            # >>> Here your own system pays, grants or sends, in this transaction.
            return _receipt(store.execute(f"SELECT {_COLUMNS} FROM effects WHERE key = ?", [key]).fetchone())

    def _require_newest(self, store: sqlite3.Connection, key: str, epoch: int) -> None:
        """Refuse an attempt when a later one with its key was seen: it was held up on the way. What is refused for
        another reason afterwards is remembered too, so this is a commit of its own."""
        seen = store.execute("SELECT epoch FROM keys WHERE key = ?", [key]).fetchone()
        if seen is not None and epoch < seen["epoch"]:
            raise Refused(409, "stale_epoch")
        store.execute("INSERT INTO keys VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET epoch = ?", [key, epoch, epoch])
        store.execute("COMMIT")
        store.execute("BEGIN IMMEDIATE")

    def _entries(self) -> list[dict[str, Any]]:
        with self._transaction() as store:
            return [dict(row) for row in store.execute(f"SELECT {_COLUMNS} FROM effects ORDER BY at, key")]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One at a time, whatever process or thread it is; undone as a whole when anything goes wrong."""
        with closing(sqlite3.connect(self._file, isolation_level=None)) as store:
            store.row_factory = sqlite3.Row
            store.execute("PRAGMA synchronous = FULL")  # What was answered is on the disk.
            store.execute("BEGIN IMMEDIATE")
            yield store
            store.execute("COMMIT")  # Without it, closing takes everything back.


def _applied(payload: Any) -> dict[str, Any]:
    """The row of an effect, or a refusal: here a system has its own rules. An amount may be left out, not be wrong."""
    if not isinstance(payload, dict):
        raise Refused(422, "payload_invalid")
    amount, currency = payload.get("amount_minor"), payload.get("currency")
    if amount is not None and (type(amount) is not int or not 0 < amount <= 10**12):
        raise Refused(422, "amount_invalid")
    if amount is not None and not (isinstance(currency, str) and re.fullmatch("[A-Z]{3}", currency)):
        raise Refused(422, "currency_invalid")
    return {"reverses": None, "amount_minor": amount, "currency": currency if amount is not None else None}


def _undone(store: sqlite3.Connection, payload: Any) -> dict[str, Any]:
    """The row that takes back what `payload["reverses"]` names, whole and once."""
    reference = payload.get("reverses") if isinstance(payload, dict) else None
    found = store.execute(
        "SELECT * FROM effects WHERE reference = ? AND kind = 'apply'", [reference if type(reference) is str else None]
    ).fetchone()
    if found is None:
        raise Refused(422, "nothing_to_undo")
    if store.execute("SELECT 1 FROM effects WHERE reverses = ?", [reference]).fetchone() is not None:
        raise Refused(422, "already_undone")
    given = (payload.get("amount_minor", found["amount_minor"]), payload.get("currency", found["currency"]))
    if given != (found["amount_minor"], found["currency"]):
        raise Refused(422, "amount_differs")
    return {"reverses": reference, "amount_minor": found["amount_minor"], "currency": found["currency"]}


def _receipt(row: sqlite3.Row) -> dict[str, Any]:
    names = ("key", "reference", "amount_minor", "currency", "at")
    return {"state": "applied"} | {name: row[name] for name in names}


def _digest(kind: str, payload: Any) -> str:
    text = json.dumps([kind, payload], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
