#!/bin/sh
# Every check, also after one has failed; the end says which did.
cd "$(dirname "$0")/../.." || exit
failed=

check() {
    name=$1
    shift
    echo "--- $name"
    "$@" || failed="$failed $name"
}

check format .venv/bin/ruff format --check --quiet
check lint .venv/bin/ruff check --quiet
check types .venv/bin/basedpyright
check imports .venv/bin/lint-imports
check contracts .venv/bin/python -m contracts.check
check openapi .venv/bin/python -m embedded.openapi --check
check lock .local/uv/bin/uv lock --check --quiet
check audit .venv/bin/python -m embedded.audit

if [ -n "$failed" ]; then
    echo "Failed:$failed" >&2
    exit 1
fi
echo "All checks pass."
