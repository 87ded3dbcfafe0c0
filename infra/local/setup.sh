#!/bin/sh
# What the other targets need, once: uv in an environment of its own, the Python packages, Kafka's jars, the git
# hooks. `setup.sh stack` is what the stack needs to run, without what it takes to work on it, and leaves the rest of
# Kafka's jars to the stack's first start. Does nothing when nothing changed since it last succeeded.
set -eu
cd "$(dirname "$0")/../.."

UV_VERSION=0.13.9
uv=.local/uv/bin/uv
log=.local/setup.log
level=${1:-all}
unreachable='connection refused|network is unreachable|no route to host|timed? ?out|name resolution|name or service not known|could not resolve host|failed to lookup address|dns error'

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

# The last of the given phrases in the log.
last() {
    grep -oiE "$1" "$log" | tail -n 1 | cut -c 1-160
}

# step NAME COMMAND...
step() {
    name=$1
    shift
    started=$(seconds)
    if ! "$@" >"$log" 2>&1; then
        if [ -n "$(last 'no space left on device')" ]; then
            fail "$name: the disk is full: free some space"
        fi
        offline=$(last "$unreachable")
        if [ -n "$offline" ]; then
            fail "$name: no network ($offline): connect, or set the proxy of this network (all of it: $log)"
        fi
        untrusted=$(last '(invalid peer certificate|certificate verify failed).*')
        if [ -n "$untrusted" ]; then
            fail "$name: this network's certificate is not trusted ($untrusted): set SSL_CERT_FILE to the file of those that are (all of it: $log)"
        fi
        cause=$(last '(error|fatal|permission denied).*')
        fail "$name failed: ${cause:-$(tail -n 1 "$log")} (all of it: $log)"
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

trust_what_the_system_trusts() {
    # A network may have an authority of its own, of which the list that uv brings knows nothing.
    if "$python" -c 'import ssl, sys; sys.exit(ssl.get_default_verify_paths().cafile is None)'; then
        export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}"
    fi
}

install_uv() {
    # Without ensurepip, which some systems package apart, and with the pip that is there.
    "$python" -m venv --without-pip --clear .local/uv &&
        "$python" -m pip --python .local/uv/bin/python install --quiet "uv==$UV_VERSION"
}

compile() {
    # Once: at the first start ten processes would do the same at the same time.
    env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -c 'import \
        auth.app, auth.worker, catalog.app, catalog.worker, inventory.app, inventory.worker, \
        payments.app, payments.worker, stripe_emulator.app, supervisor.supervisord, libs.web.serving' || true
}

install_hooks() {
    .venv/bin/pre-commit install --hook-type pre-commit --hook-type pre-push
}

fetch_jars() {
    # From here on beside everything else; a failure is told by who needs them.
    "$uv" sync --frozen --inexact --only-group jars --python "$python" --no-python-downloads &&
        (env PYTHONPATH=infra/local/src .venv/bin/python -m embedded.jars 9>&- >/dev/null 2>&1 &)
}

install_packages() {
    case $level in
    stack) "$uv" sync --frozen --inexact --no-dev --group stack --python "$python" --no-python-downloads ;;
    all) "$uv" sync --frozen --python "$python" --no-python-downloads ;;
    esac
}

wanted=$(inputs | cksum)
is_made() {
    [ -f ".venv/.setup-$1" ] && [ "$(cat ".venv/.setup-$1")" = "$wanted" ]
}

is_current() {
    { is_made all || is_made "$level"; } && [ -x "$uv" ] && .venv/bin/python -c '' 2>/dev/null
}

if is_current; then
    exit 0
fi
mkdir -p .local
exec 9>.local/setup.lock
flock 9
if is_current; then # somebody else did it meanwhile
    exit 0
fi
find_python
trust_what_the_system_trusts
echo "Setting up"
if ! .venv/bin/python -c '' 2>/dev/null; then
    rm -rf .venv # what was cut off half-way, or has lost its Python: uv would refuse it
fi
if [ "$("$uv" --version 2>/dev/null | cut -d ' ' -f 2)" != "$UV_VERSION" ]; then
    step uv install_uv
fi
step jgo fetch_jars
step packages install_packages
compile >/dev/null 2>&1 &
if [ "$level" = all ]; then
    step kafka .venv/bin/python -m embedded install
    if [ -f .pre-commit-config.yaml ] && [ -e .git ] && [ -z "$(git config core.hooksPath || true)" ]; then
        step "git hooks" install_hooks
    fi
fi
wait
echo "$wanted" >".venv/.setup-$level"
