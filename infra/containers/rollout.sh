#!/bin/sh
# rollout.sh SERVICE...: replaces the containers of each, one service after another, by new ones of the present image and
# settings, without a refused request: as many new ones beside the old, and when they are healthy the old ones stop, which
# lets them drain.
set -eu
cd "$(dirname "$0")/../.."

if [ $# = 0 ]; then
    echo 'which services? make rollout S="inventory-app inventory-worker"' >&2
    exit 1
fi
for service in "$@"; do
    old=$(docker compose ps --quiet "$service")
    if [ -z "$old" ]; then
        echo "$service does not run: docker compose up -d $service" >&2
        exit 1
    fi
    count=$(echo "$old" | wc -l)
    docker compose up --detach --wait --no-deps --no-recreate --scale "$service=$((2 * count))" "$service"
    # shellcheck disable=SC2086 # one word for each
    docker stop $old >/dev/null
    # shellcheck disable=SC2086
    docker rm $old >/dev/null
done
