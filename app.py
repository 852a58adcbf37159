"""The process: settings, logging, store and worker; the way in (sign-in, headers, health) around the pages.

`python -m app`, `streamlit run app.py` and any ASGI server run the same lifespan: the worker starts with the server,
not with the first visitor, and drains when the server is told to end.
"""

import gc
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import streamlit as st
import structlog
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from core import clock, errors, installation, logs, outage, standing
from core import settings as settings_
from core.settings import Settings
from core.worker import Worker, require_prices
from pages.parts import access, door, sign_in
from storage import database, schema

log = structlog.get_logger()

ROOT = Path(__file__).resolve().parent
QUIET_SECONDS = 15.0  # A worker that has not looked for work for this long is not well.

# What must hold however the server was started: asserted at start, because a forgotten file would open doors.
BASELINE: Mapping[str, Any] = {
    "browser.gatherUsageStats": False,
    "client.showErrorDetails": "none",
    "client.showErrorLinks": False,
    "client.toolbarMode": "minimal",
    "server.enableXsrfProtection": True,
    "server.enableStaticServing": False,
    "server.enableAgentApi": False,
    "server.allowedHosts": ["127.0.0.1", "localhost"],
    "server.trustedUserHeaders": {door.USER_HEADER: "name"},
    "server.maxUploadSize": 5,
    "server.fileWatcherType": "none",
}


def main() -> None:
    """Serve the console at the loopback port that the settings name, until told to end."""
    try:
        settings = settings_.load()
        # All this only to be refused in one line: inside the server a refusal comes with a page of traceback.
        require_prices(settings)
        _claim_port(settings.port)
        installation.open_(settings, create=False)
        database.use(None)
    except errors.StartError as error:
        print(f"countersign: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    # The server drains on SIGTERM and then raises it again: by then the work is given back, and all is well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"Countersign is at http://127.0.0.1:{settings.port} (Ctrl+C ends it)", flush=True)
    app.run(
        config={
            **{name: value for name, value in BASELINE.items() if name != "server.trustedUserHeaders"},
            "server.trustedUserHeaders": f'{{"{door.USER_HEADER}": "name"}}',
            "server.address": "127.0.0.1",
            "server.port": settings.port,
            "server.headless": True,
            "client.showSidebarNavigation": True,
            "client.disableDataExport": True,
            "logger.hideWelcomeMessage": True,
            "runner.postScriptGC": False,
        }
    )


@asynccontextmanager
async def lifespan(_app: object) -> AsyncIterator[dict[str, Any]]:
    """Open the store and run the worker for as long as the server runs. What is wrong is said in one line."""
    try:
        running = await anyio.to_thread.run_sync(_start)
    except errors.CountersignError as error:
        print(f"countersign: {error}", file=sys.stderr)
        raise
    try:
        yield {"worker": running}
    finally:
        await anyio.to_thread.run_sync(running.stop)
        database.use(None)


def _start() -> Worker:
    settings = settings_.load()
    logs.set_up(settings.log_level)
    _assert_baseline()
    installation.open_(settings, create=False)
    running = Worker(settings, receivers=installation.receivers(settings))
    running.start()
    _state.update(settings=settings, worker=running)
    access.use(settings, wake=running.wake)
    _warm_up()
    # What is loaded by now stays: the collector need not look at it after every run of a page.
    gc.collect()
    gc.freeze()
    log.info("server.started", port=settings.port, model=settings.model or "built-in rules")
    return running


def _assert_baseline() -> None:
    wrong = [name for name, wanted in BASELINE.items() if st.get_option(name) != wanted]
    if wrong:
        raise errors.StartError(
            f"these settings of the server are not as .streamlit/config.toml has them: {', '.join(wrong)}; start it "
            "with `countersign serve`, and set none of them in the environment"
        )


def _warm_up() -> None:
    """Import what the first page would otherwise import while its visitor waits."""
    import pandas
    import plotly.graph_objects

    from core import actions, cases
    from pages.parts import badges, plain

    del pandas, plotly, actions, cases, badges, plain


def _claim_port(port: int) -> None:
    """Refuse a port that somebody listens on: the server would quietly take the next one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise errors.StartError(
                f"port {port} cannot be used ({error.strerror}); set COUNTERSIGN_PORT to another"
            ) from error


def on_script_error(error: Exception) -> bool:
    """Log what a page raised under an id, and show the id instead of the words."""
    if isinstance(error, outage.Away):  # A button found the store away before the page began: no bug of the page.
        st.error(f"Not done: {outage.since(error)}. Try again.", icon=":material/error:")
        return True
    reference = secrets.token_hex(4)
    log.error("page.failed", reference=reference, exc_info=error)
    st.error(
        f"Something went wrong on this page, and it was written down as **{reference}**. What was saved before is "
        "safe. Try again, and give the number to an administrator if it comes back.",
        icon=":material/error:",
    )
    return True


# --- Health ---------------------------------------------------------------------------------------------------------

_state: dict[str, Any] = {}


async def livez(_request: Request) -> JSONResponse:
    """The process answers."""
    return JSONResponse({"live": True})


async def readyz(_request: Request) -> JSONResponse:
    """Whether people can work: database, migrations, the worker's last tick; 503 with the reasons if not. A lane that
    is stopped is told of, and is no reason."""
    body, reasons = await anyio.to_thread.run_sync(_readiness)
    body = {"ready": not reasons, "reasons": reasons, **body}
    return JSONResponse(body, status_code=503 if reasons else 200)


def _readiness() -> tuple[dict[str, Any], list[str]]:
    reasons: list[str] = []
    body: dict[str, Any] = {"database": "unknown", "migrations": "unknown"}
    try:
        database.ping()
        body["database"] = "ok"
        found, wanted = schema.revision(), schema.head()
        body["migrations"] = found
        if found != wanted:
            reasons.append(f"the database has schema {found}, this program needs {wanted}")
        restored = installation.restored_at()
        body["restored_at"] = restored.isoformat() if restored else None  # Set: nothing is sent yet; no reason for 503.
        if restored:
            body["restored"] = installation.restored_in_words(restored)
    except Exception as error:
        body["database"] = "away"
        reasons.append(str(error) if isinstance(error, database.StoreError) else "the database does not answer")
    lasting = database.outage()
    if lasting is not None:
        body["away_since"] = lasting.since.isoformat()
        if body["database"] == "ok":  # It reads, and saves nothing.
            reasons.append(outage.since(lasting))
    worker: Worker | None = _state.get("worker")
    if worker is None:
        reasons.append("the worker was not started")
        return body, reasons
    health = worker.health()
    age = (clock.now() - health.last_tick).total_seconds() if health.last_tick else None
    body["worker"] = {
        "holder": health.holder,
        "running": health.running,
        "last_tick": health.last_tick.isoformat() if health.last_tick else None,
        "in_flight": health.in_flight,
    }
    body["lanes"] = health.lanes
    if body["database"] == "ok":
        shut = [one for one in standing.of_lanes(worker.settings) if one.state != "open"]
        body["stopped"] = [_for_everybody(one) for one in shut]
    if not health.running:
        reasons.append("the worker is not running")
    elif age is None or age > QUIET_SECONDS:
        reasons.append("the worker has not looked for work" + (f" for {age:.0f} seconds" if age else " yet"))
    return body, reasons


def _for_everybody(one: standing.Standing) -> dict[str, Any]:
    """How a lane stands, for who has not signed in: without what a person wrote, his name, or a case."""
    return one.as_json() | ({"why": one.why_for_all} if one.why_for_all else {})


def settings_in_use() -> Settings:
    """The settings of the running server."""
    found = _state.get("settings")
    return found if isinstance(found, Settings) else settings_.load()


app = st.App(
    ROOT / "pages" / "console.py",
    lifespan=lifespan,
    middleware=[Middleware(door.Door, settings=settings_in_use)],
    routes=[
        *sign_in.routes(settings_in_use),
        Route("/livez", livez),
        Route("/readyz", readyz),
    ],
    on_script_error=on_script_error,
)

if __name__ == "__main__":
    main()
