"""The built-in model: keyword rules behind the shape of a chat-completions server. It is no AI, and says so.

It answers in process (`httpx2.ASGITransport(app=offline.app)`) where no model is configured, so that everything
around a model can be tried on a machine with no key; any ASGI server can serve it as well. It calls nothing, keeps
nothing and answers the same question with the same bytes. It knows the workflows in `_RULES`; for any other it
refuses, and a person decides.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from core import offline_refunds

MODEL = "builtin-rules-1"
OWNER = "builtin (no AI)"
FINGERPRINT = "rules, not a model"
LARGEST_BODY = 16_000_000  # Bytes: the longest request that the form accepts stays below it.

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_RULES: dict[str, Callable[[Mapping[str, Any]], BaseModel]] = {"refunds": offline_refunds.propose}


@dataclass(frozen=True)
class _Refusal(Exception):
    """An answer other than 200, as such servers word it."""

    status: int
    code: str
    message: str


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """The ASGI application: `POST …/chat/completions`, `GET …/models`, and a clear 404 for all else."""
    if scope["type"] == "lifespan":
        return await _lifespan(receive, send)
    if scope["type"] != "http":
        raise ValueError(f"the built-in rules speak HTTP, not {scope['type']}")
    body = b""
    try:
        body = await _body(receive)
        status, answer = 200, _answer(scope["method"], scope["path"], body)
    except _Refusal as refusal:
        status, answer = refusal.status, _error(refusal)
    await _respond(send, status, answer, request_id=f"builtin-{_digest(body)}")


def _answer(method: str, path: str, body: bytes) -> dict[str, Any]:
    match method, path.rstrip("/").removeprefix("/v1"):
        case "GET", "/models":
            return {"object": "list", "data": [_model()]}
        case "GET", one if one == f"/models/{MODEL}":
            return _model()
        case "POST", "/chat/completions":
            return _completion(body)
    raise _Refusal(404, "unsupported", "the built-in rules answer chat completions only")


def _completion(body: bytes) -> dict[str, Any]:
    question = _json_object(body, "the request")
    if question.get("model") != MODEL:
        raise _Refusal(404, "model_not_found", f"there is only the model {MODEL} here")
    if question.get("stream"):
        raise _Refusal(400, "unsupported", "the built-in rules do not stream")
    rules = _RULES.get(_schema_name(question))
    if rules is None:
        known = ", ".join(_RULES)
        raise _Refusal(400, "unsupported_workflow", f"the built-in rules know these workflows only: {known}")
    content = rules(_json_object(_user_message(question).encode("utf-8", "surrogatepass"), "the user message"))
    return {
        "id": f"builtin-{_digest(body)}",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "system_fingerprint": FINGERPRINT,
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "logprobs": None,
                "message": {"role": "assistant", "content": content.model_dump_json(), "refusal": None},
            }
        ],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }


def _schema_name(question: Mapping[str, Any]) -> str:
    """The name of the schema asked for, which is the name of the workflow; empty if none is asked for."""
    match question.get("response_format"):
        case {"type": "json_schema", "json_schema": {"name": str(name)}}:
            return name
    return ""


def _user_message(question: Mapping[str, Any]) -> str:
    messages = question.get("messages")
    for message in reversed(messages if isinstance(messages, list) else []):
        match message:
            case {"role": "user", "content": str(content)}:
                return content
    raise _Refusal(400, "unsupported_data", "there is no user message with text")


def _json_object(text: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _Refusal(400, "unsupported_data", f"{what} is not a JSON object")
    return value


def _model() -> dict[str, Any]:
    return {"id": MODEL, "object": "model", "created": 0, "owned_by": OWNER}


def _error(refusal: _Refusal) -> dict[str, Any]:
    fault = {"message": refusal.message, "type": "invalid_request_error", "code": refusal.code, "param": None}
    return {"error": fault}


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > LARGEST_BODY:
            raise _Refusal(413, "too_large", f"the request is larger than {LARGEST_BODY} bytes")
    return bytes(body)


async def _respond(send: Send, status: int, answer: dict[str, Any], *, request_id: str) -> None:
    body = json.dumps(answer).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "x-request-id": request_id}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
