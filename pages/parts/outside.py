"""Pages outside the console, for who is not in it: the one plain frame, and what is said while the store is away."""

import html
from typing import Final

from starlette.responses import HTMLResponse

from core import outage

POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
AGAIN_SECONDS: Final = 5


def page(title: str, body: str, status: int = 200, *, head: str = "") -> HTMLResponse:
    """A whole page; `body` and `head` are HTML of ours, in which what came from outside is escaped."""
    return HTMLResponse(
        _PAGE.format(title=title, body=body, head=head),
        status,
        headers={"content-security-policy": POLICY, "cache-control": "no-store"},
    )


def unavailable(error: outage.Away) -> HTMLResponse:
    """What is wrong, since when, and that nothing happened. It asks again by itself."""
    what = html.escape(outage.since(error))
    body = (
        f'<p class="problem" role="alert">{what[:1].upper()}{what[1:]}.</p>'
        "<p>Nobody can sign in now, and nothing was changed. This page tries again by itself.</p>"
    )
    found = page("Not available", body, 503, head=f'<meta http-equiv="refresh" content="{AGAIN_SECONDS}">\n')
    found.headers["retry-after"] = str(AGAIN_SECONDS)
    return found


_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{head}<title>{title} · Countersign</title>
<link rel="icon" href="/sign-in.svg">
<link rel="stylesheet" href="/sign-in.css">
</head>
<body>
<main>
<header><img src="/sign-in.svg" alt="" width="40" height="40"><h1>Countersign</h1></header>
<p class="lead">The model proposes, a person countersigns, every effect can be undone.</p>
{body}
</main>
</body>
</html>
"""
