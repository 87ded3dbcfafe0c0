#!/bin/sh
# POSTGRES_PASSWORD (or POSTGRES_PASSWORD_FILE), POSTGRES_USER, POSTGRES_DB, POSTGRES_INITDB_ARGS and the SQL in
# /docker-entrypoint-initdb.d make the first database, as in the public image.
set -eu

case ${1:-postgres} in -*) set -- postgres "$@" ;; esac
if [ "$1" != postgres ]; then
    exec "$@"
fi
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown postgres:postgres "$(dirname "$PGDATA")" "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"
fi
user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    password=${POSTGRES_PASSWORD:-$(cat "${POSTGRES_PASSWORD_FILE:?POSTGRES_PASSWORD is not set}")}
    # Made under another name: a start that was cut off leaves nothing that looks whole.
    draft=$PGDATA.new
    rm -rf "$draft"
    echo "$password" | initdb -D "$draft" -U "$user" --pwfile=/dev/stdin --auth-host=scram-sha-256 --encoding=UTF8 \
        --locale-provider=builtin --locale=C.UTF-8 ${POSTGRES_INITDB_ARGS:-}
    echo "host all all all scram-sha-256" >>"$draft/pg_hba.conf"
    pg_ctl -D "$draft" -w -o "-c listen_addresses= -c unix_socket_directories=/tmp" start
    [ "$database" = postgres ] || createdb -h /tmp -U "$user" "$database"
    for file in /docker-entrypoint-initdb.d/*.sql; do
        [ ! -e "$file" ] || psql -h /tmp -U "$user" -d "$database" -v ON_ERROR_STOP=1 -q -f "$file"
    done
    pg_ctl -D "$draft" -w stop
    rmdir "$PGDATA" 2>/dev/null || true
    mv "$draft" "$PGDATA"
fi
case " $* " in *listen_addresses*) ;; *) set -- "$@" -c listen_addresses='*' ;; esac
exec "$@"
