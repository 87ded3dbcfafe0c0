#!/bin/sh
# Prints the mirror that this machine's apt has its own Debian from.
set -eu

# shellcheck disable=SC1091
. /etc/os-release
mirror=$(apt-get indextargets --format '$(RELEASE) $(SITE)' | awk -v release="$VERSION_CODENAME" '$1 == release { print $2; exit }')
[ -n "$mirror" ] || { echo "error: apt has no source for $VERSION_CODENAME" >&2; exit 1; }
echo "$mirror"
