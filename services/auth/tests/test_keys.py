"""Signing keys: made once, published without their secret half, rotated without a refused token."""

import asyncio
import base64
import json
from typing import Any

import httpx
import jwt
import psycopg
import pytest
from auth import queries
from auth.keys import KeyRing, add_signing_key, ensure_signing_key
from litestar import Litestar

from services.auth.tests.support import Database, Person


def header_and_claims(token: str) -> list[dict[str, Any]]:
    parts = token.split(".")[:2]
    return [json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts]


async def published_keys(client: httpx.AsyncClient) -> list[dict[str, str]]:
    return (await client.get("/.well-known/jwks.json")).json()["keys"]


async def test_access_token_is_what_the_services_expect(client: httpx.AsyncClient, ada: Person) -> None:
    header, claims = header_and_claims(ada.token)
    assert header["alg"] == "EdDSA"
    assert header["typ"] == "at+jwt"
    assert (claims["iss"], claims["aud"]) == ("ticketing-auth", "ticketing")
    assert (claims["sub"], claims["role"]) == (str(ada.id), "user")
    assert claims["exp"] == int(claims["iat"]) + 600
    assert claims["jti"]
    [key] = [key for key in await published_keys(client) if key["kid"] == header["kid"]]
    assert jwt.decode(ada.token, jwt.PyJWK(key), algorithms=["EdDSA"], audience="ticketing")


async def test_published_keys_have_no_secret_half_and_may_be_cached(client: httpx.AsyncClient) -> None:
    answer = await client.get("/.well-known/jwks.json")
    assert answer.headers["cache-control"] == "public, max-age=300"
    for key in answer.json()["keys"]:
        assert set(key) == {"kty", "crv", "x", "kid", "alg", "use"}
    unchanged = await client.get("/.well-known/jwks.json", headers={"If-None-Match": answer.headers["etag"]})
    assert unchanged.status_code == 304


async def test_replicas_that_start_at_once_make_one_key(
    client: httpx.AsyncClient, database: Database, environment: dict[str, str]
) -> None:
    await database.run("DELETE FROM signing_keys")

    async def start() -> str:
        async with await psycopg.AsyncConnection.connect(environment["AUTH_DATABASE_URL"]) as conn:
            [row] = await ensure_signing_key(conn, keep_seconds=600)
            return row.kid

    assert len(set(await asyncio.gather(*(start() for _ in range(8))))) == 1


async def test_rotated_key_is_published_first_and_signs_later_and_the_old_one_retires(
    app: Litestar, client: httpx.AsyncClient, database: Database, ada: Person, environment: dict[str, str]
) -> None:
    ring: KeyRing = app.state.key_ring
    [old_header, _] = header_and_claims(ada.token)
    async with await psycopg.AsyncConnection.connect(environment["AUTH_DATABASE_URL"]) as conn:
        await queries.lock_signing_keys(conn)
        new = await add_signing_key(conn, active_after_seconds=600, keep_seconds=660)
    await ring.load()
    assert new in {key["kid"] for key in await published_keys(client)}
    assert header_and_claims((await ada.log_in()).token)[0]["kid"] == old_header["kid"]

    # Ten minutes later.
    await database.run("UPDATE signing_keys SET active_from = now() WHERE kid = %s", new)
    await ring.load()
    by_old_key = ada.token
    assert header_and_claims((await ada.log_in()).token)[0]["kid"] == new
    assert (await ada.try_me(by_old_key)).status_code == 200
    assert (await ada.try_me()).status_code == 200

    # Ten more, and the last token of the old key has expired.
    await database.run(
        "UPDATE signing_keys SET active_from = now() - interval '1 day', retire_at = now() WHERE kid <> %s",
        new,
    )
    await ring.load()
    assert [key["kid"] for key in await published_keys(client)] == [new]


async def test_superseded_key_never_signs_although_it_becomes_active_last(
    app: Litestar, client: httpx.AsyncClient, database: Database, ada: Person, environment: dict[str, str]
) -> None:
    async with await psycopg.AsyncConnection.connect(environment["AUTH_DATABASE_URL"]) as conn:
        slow = await add_signing_key(conn, active_after_seconds=600, keep_seconds=660)
        quick = await add_signing_key(conn, active_after_seconds=0, keep_seconds=660)
    await database.run("UPDATE signing_keys SET active_from = now() WHERE kid = %s", slow)
    await app.state.key_ring.load()
    assert header_and_claims((await ada.log_in()).token)[0]["kid"] == quick


async def test_only_the_app_may_read_the_private_keys(environment: dict[str, str]) -> None:
    url = environment["AUTH_WORKER_DATABASE_URL"]
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        for forbidden in (
            "SELECT private_pem FROM signing_keys",
            "SELECT password_phc FROM users",
            "SELECT digest FROM refresh_tokens",
            "UPDATE users SET role = 'admin'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await conn.execute(forbidden.encode())


async def test_until_the_keys_are_read_a_login_is_503(app: Litestar, ada: Person) -> None:
    ring: KeyRing = app.state.key_ring
    ring._keys = []  # pyright: ignore[reportPrivateUsage]  # as before the first load
    answer = await ada.try_log_in()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    await ring.load()
    await ada.log_in()
