#!/bin/sh
# base/make.sh TAR: Debian 13, minimal, with the certificate authorities of this machine.
set -eu
cd "$(dirname "$0")"

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "error: the base is made by Debian's own tools: run this on Debian, as root" >&2
    exit 1
fi
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
../../trixie.sh "$tools" mmdebstrap
PATH=$tools/usr/bin:$PATH mmdebstrap --mode=root --variant=minbase --include=ca-certificates \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs' \
    --customize-hook='copy-in 99small /etc/apt/apt.conf.d' \
    --customize-hook='rm -f "$1"/var/cache/apt/*.bin' \
    trixie "$1" "$(../../mirror.sh)"
