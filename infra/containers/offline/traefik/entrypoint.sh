#!/bin/sh
set -eu

case ${1:-} in -*) set -- traefik "$@" ;; esac
exec "$@"
