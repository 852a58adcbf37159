#!/bin/sh
# Prints the path of a Chromium that starts, installing one if need be. Everything else it says goes to stderr.
# Order: $CHROMIUM, one on the PATH, Debian's package when root, playwright's own.
set -u
cd "$(dirname "$0")/../.." || exit 1
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT

limit=$(command -v timeout >/dev/null && echo "timeout 20")
works() { [ -n "$1" ] && $limit "$1" --version >"$log" 2>&1; } # Ubuntu's package is a stub that does not
use() { echo "Chromium: $1 ($2, $(tail -n 1 "$log"))" >&2; echo "$1"; exit 0; }
on_path() {
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        found=$(command -v "$name") && works "$found" && use "$found" "$1"
    done
}

if [ -n "${CHROMIUM:-}" ]; then
    works "$CHROMIUM" && use "$CHROMIUM" "named by CHROMIUM"
    echo "CHROMIUM=$CHROMIUM does not start:" >&2; head -n 5 "$log" >&2; exit 1
fi
on_path "found on the PATH"

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Chromium: installing the system's package" >&2
    if { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; } >"$log" 2>&1; then
        on_path "installed by apt-get"
    fi
    tail -n 5 "$log" >&2
fi

export PLAYWRIGHT_BROWSERS_PATH="$PWD/.venv/browsers"
own() { .venv/bin/python -c 'from playwright.sync_api import sync_playwright as s
with s() as p: print(p.chromium.executable_path)' 2>"$log"; }
if [ -x .venv/bin/playwright ]; then
    path=$(own)
    if [ ! -x "$path" ]; then
        echo "Chromium: installing playwright's own" >&2
        .venv/bin/playwright install chromium >"$log" 2>&1 || tail -n 5 "$log" >&2
    fi
    works "$path" && use "$path" "playwright's own"
    head -n 5 "$log" >&2
fi

echo "No Chromium that starts. Install one (Debian: apt-get install chromium) or name it: CHROMIUM=/path/to/chromium make test" >&2
exit 1
