#!/bin/sh
set -eu

case ${1:-} in -* | *.conf) set -- redis-server "$@" ;; esac
if [ "$1" = redis-server ]; then
    # As the public image: who reaches the port may speak.
    set -- "$@" --protected-mode no
    if [ "$(id -u)" = 0 ]; then
        chown redis:redis .
        exec setpriv --reuid=redis --regid=redis --clear-groups "$@"
    fi
fi
exec "$@"
