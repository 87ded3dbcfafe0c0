#!/bin/sh
# trixie.sh FOLDER PACKAGE...: unpacks packages of Debian 13 into a folder. apt's own sources and lists stay as they are.
set -eu

folder=$1
shift
mkdir -p "$folder"
mirror=$("$(dirname "$0")/mirror.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" \
    >"$work/sources.list"

apt() {
    (cd "$work" && apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=- \
        -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work" -o APT::Sandbox::User=root -o Acquire::Languages=none "$@")
}

apt update
apt download "$@"
for package in "$work"/*.deb; do
    dpkg -x "$package" "$folder"
done
