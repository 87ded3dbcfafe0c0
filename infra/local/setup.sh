#!/bin/sh
# All that the other targets need: uv in an environment of its own, the Python packages, Kafka's jars, the git
# hooks. Does nothing when nothing changed since it last succeeded.
set -eu
cd "$(dirname "$0")/../.."

UV_VERSION=0.13.9
uv=.local/uv/bin/uv
log=.local/setup.log
stamp=.venv/.setup

fail() {
    echo "$*" >&2
    exit 1
}

inputs() {
    cat pyproject.toml uv.lock ./*/pyproject.toml ./*/*/pyproject.toml infra/local/kafka.lock "$0"
    [ ! -f .pre-commit-config.yaml ] || cat .pre-commit-config.yaml
    pwd
}

seconds() {
    date +%s.%N
}

# step NAME WHAT-TO-DO-WHEN-IT-FAILS COMMAND...
step() {
    name=$1 advice=$2
    shift 2
    started=$(seconds)
    if ! "$@" >"$log" 2>&1; then
        cause=$(grep -iE 'No space left|Permission denied|resolve|connect|Network|timed out|error' "$log" | tail -n 1)
        case $cause in
        *"No space left"*) advice="the disk is full: free some space" ;;
        esac
        fail "$name failed: ${cause:-$(tail -n 1 "$log")}; $advice (all of it: $log)"
    fi
    echo "$started $(seconds)" | awk -v name="$name" '{ printf "  %-18s done       %5.1f s\n", name, $2 - $1 }'
}

find_python() {
    for python in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            return
        fi
    done
    fail "no Python 3.11 or later is on the PATH: install one, or set PYTHON to its path"
}

install_uv() {
    # Without ensurepip, which some systems package apart, and with the pip that is there.
    "$python" -m venv --without-pip --clear .local/uv &&
        "$python" -m pip --python .local/uv/bin/python install --quiet "uv==$UV_VERSION"
}

install_hooks() {
    .venv/bin/pre-commit install --hook-type pre-commit --hook-type pre-push
}

wanted=$(inputs | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && [ -x "$uv" ] && .venv/bin/python -c '' 2>/dev/null; then
    exit 0
fi

mkdir -p .local
find_python
echo "Setting up"
online="this step needs the network: connect, or set the proxy that pip uses here"
if [ "$("$uv" --version 2>/dev/null | cut -d ' ' -f 2)" != "$UV_VERSION" ]; then
    step uv "$online" install_uv
fi
step packages "$online" "$uv" sync --frozen --python "$python" --no-python-downloads
step kafka "$online" .venv/bin/python -m embedded install
if [ -f .pre-commit-config.yaml ] && [ -e .git ] && [ -z "$(git config core.hooksPath || true)" ]; then
    step "git hooks" "git does not take them" install_hooks
fi
echo "$wanted" >"$stamp"
