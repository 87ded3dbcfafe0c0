#!/bin/sh
# Stand-ins for the public images that compose.yaml names, made of packages: for machines that reach no registry of
# images. Writes their names to .env, where none is set. An image whose inputs are what they were is left as it is.
set -eu
cd "$(dirname "$0")/../../.."

here=infra/containers/offline
log=.local/images.log
inputs_label=ticketing.inputs

fail() {
    echo "$*" >&2
    exit 1
}

digest() {
    cat "$@" | sha256sum | cut -c 1-16
}

# image NAME DIGEST COMMAND: the command makes it, unless there is one of that digest.
image() {
    tag=ticketing-standin/$1
    found=$(docker image inspect --format "{{ index .Config.Labels \"$inputs_label\" }}" "$tag" 2>/dev/null || true)
    if [ "$found" = "$2" ]; then
        printf '  %-30s is there\n' "$tag"
        return
    fi
    started=$(date +%s)
    if ! "$3" "$1" "$2" >"$log" 2>&1; then
        fail "$tag failed: $(grep -iE '(error|fail|^E:)' "$log" | tail -n 1 | cut -c 1-200) (all of it: $log)"
    fi
    printf '  %-30s made %6d s\n' "$tag" $(($(date +%s) - started))
}

make_base() {
    folder=$(mktemp -d)
    "$here/base/make.sh" "$folder/base.tar" && docker import --change "LABEL $inputs_label=$2" \
        --change "LABEL ticketing.standin=true" "$folder/base.tar" "ticketing-standin/$1"
    status=$?
    rm -rf "$folder"
    return $status
}

make_image() {
    docker buildx build --target "$1" --tag "ticketing-standin/$1" --label "$inputs_label=$2" \
        --label ticketing.standin=true --build-arg PIP_INDEX_URL --build-arg GOPROXY --build-arg GOSUMDB \
        --file "$here/Dockerfile" .
}

docker info >/dev/null 2>&1 || fail "no Docker Engine answers: make engine"
mkdir -p .local
touch .env
[ -z "$(tail -c 1 .env)" ] || echo >>.env
echo "Stand-ins for the public images"
base=$(digest "$here"/base/* infra/containers/trixie.sh infra/containers/mirror.sh /etc/ssl/certs/ca-certificates.crt)
image base "$base" make_base
inputs=$(echo "$base" | digest - "$here/Dockerfile" "$here"/*/* uv.lock infra/local/kafka.lock infra/local/src/embedded/jars.py)
for name in python postgres redis kafka traefik jaeger prometheus; do
    image "$name" "$inputs" make_image
    variable=$(echo "$name" | tr '[:lower:]' '[:upper:]')_IMAGE
    grep -q "^$variable=" .env || echo "$variable=ticketing-standin/$name" >>.env
done
