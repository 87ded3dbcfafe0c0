#!/bin/sh
# Gives a Debian machine, as root, what `docker compose` needs: an engine that runs, compose v2 and buildx. What is there
# already is left as it is.
set -eu

plugins=/usr/local/lib/docker/cli-plugins
log=${TMPDIR:-/tmp}/ticketing-dockerd.log

fail() {
    echo "$*" >&2
    exit 1
}

answers() {
    docker info >/dev/null 2>&1
}

has_plugins() {
    docker compose version >/dev/null 2>&1 && docker buildx version >/dev/null 2>&1
}

debian() {
    # shellcheck disable=SC1091
    [ -r /etc/os-release ] && (. /etc/os-release && [ "$ID" = debian ] && [ "$VERSION_ID" -ge 12 ])
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq "$@"
}

install_engine() {
    apt update
    packages=docker.io
    # From Debian 13 on the command is a package of its own.
    if ! command -v docker >/dev/null && [ -n "$(apt-cache search --names-only '^docker-cli$')" ]; then
        packages="$packages docker-cli"
    fi
    # shellcheck disable=SC2086
    apt install --no-install-recommends $packages iptables ca-certificates >/dev/null
}

# Debian 12 has neither as a plugin: they come out of Debian 13's packages.
install_plugins() {
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    "$(dirname "$0")/trixie.sh" "$folder" docker-compose docker-buildx
    mkdir -p "$plugins"
    for name in docker-compose docker-buildx; do
        install "$(find "$folder" -type f -name "$name" -perm -u+x | head -n 1)" "$plugins"
    done
}

start() {
    if [ -d /run/systemd/system ]; then
        systemctl start docker
    else
        setsid dockerd >"$log" 2>&1 </dev/null &
    fi
    for _ in $(seq 60); do
        if answers; then
            return
        fi
        sleep 0.5
    done
    fail "dockerd does not answer: $(tail -n 1 "$log" 2>/dev/null | cut -c 1-200) (all of it: $log, or journalctl -u docker)"
}

if ! answers || ! has_plugins; then
    debian || fail "make engine knows Debian 12 and later only: install Docker Engine with compose v2 and buildx by hand"
    [ "$(id -u)" = 0 ] || fail "make engine installs packages and starts dockerd: run it as root"
    command -v dockerd >/dev/null && command -v docker >/dev/null || install_engine
    has_plugins || install_plugins
    answers || start
fi
echo "Docker Engine $(docker version --format '{{.Server.Version}}'), compose $(docker compose version --short), $(docker buildx version | cut -d ' ' -f 2)"
