#!/bin/sh
# run.sh [URL]: the Postman collection, by newman, against the running stack: the embedded one, or the containers at
# https://localhost (with certs/ca.crt) or http://localhost:3001.
set -eu
cd "$(dirname "$0")/.."

NEWMAN_VERSION=6.2.2
newman=.local/newman/node_modules/.bin/newman
url=${1:-}

case $url in
'' | http://* | https://*) ;;
*)
    echo "URL=$url is no address: say https://localhost or http://localhost:3001, or leave it out for the embedded stack" >&2
    exit 1
    ;;
esac
if [ -n "$url" ] && [ -z "${STRIPE_SECRET_KEY:-}" ] && [ ! -f .env ]; then
    echo "there is no .env with the key of the containers' Stripe emulator: make certs, or set STRIPE_SECRET_KEY" >&2
    exit 1
fi
if ! command -v npm >/dev/null; then
    echo "npm is not on the PATH: install Node.js (Debian: apt-get install npm), or import api/*.json into Postman" >&2
    exit 1
fi
if [ "$("$newman" --version 2>/dev/null)" != "$NEWMAN_VERSION" ]; then
    echo "Installing newman $NEWMAN_VERSION"
    npm install --silent --no-audit --no-fund --prefix .local/newman "newman@$NEWMAN_VERSION" >&2
fi

environment=api/postman-env-local.json
trust=
if [ -z "$url" ]; then
    found=$(.venv/bin/python -m embedded env)
    eval "$found"
    url=$GATEWAY_URL
else
    # The containers' Stripe emulator.
    STRIPE_SECRET_KEY=${STRIPE_SECRET_KEY:-$(sed -n 's/^STRIPE_EMULATOR_KEY=//p' .env)}
    STRIPE_API_BASE=${STRIPE_API_BASE:-http://localhost:3020}
fi
case $url in
https://*)
    environment=api/postman-env-https.json
    trust="--ssl-extra-ca-certs certs/ca.crt"
    ;;
esac

# shellcheck disable=SC2086 # two words, or none
exec "$newman" run api/ticketing-api.postman.json --environment "$environment" $trust \
    --env-var "baseUrl=$url" --env-var "stripeApiBase=$STRIPE_API_BASE" --env-var "stripeSecretKey=$STRIPE_SECRET_KEY"
