"""Sessions: a refresh token is good for one use, and a thief's use ends the session."""

import asyncio
from typing import Any

import httpx
import pytest
from auth.keys import KeyRing
from auth.worker import forget_old_tokens
from libs.postgres import create_pool

from services.auth.tests.support import Database, Person


async def test_refresh_answers_a_new_pair(ada: Person) -> None:
    answer = await ada.try_refresh()
    assert answer.status_code == 200
    session = answer.json()
    assert set(session) == {"token", "refreshToken", "expiresIn", "user"}
    assert session["refreshToken"] != ada.refresh_token
    assert (await ada.try_me(session["token"])).json() == session["user"]
    assert (await ada.try_refresh(session["refreshToken"])).status_code == 200


async def test_used_refresh_token_revokes_its_family_and_no_other(ada: Person) -> None:
    other = await Person(ada.client, email=ada.email).log_in()
    second = (await ada.try_refresh()).json()["refreshToken"]
    third = (await ada.try_refresh(second)).json()["refreshToken"]
    reused = await ada.try_refresh()
    assert (reused.status_code, reused.json()["code"]) == (401, "invalid_refresh_token")
    assert (await ada.try_refresh(third)).status_code == 401
    assert (await other.try_refresh()).status_code == 200


async def test_of_parallel_refreshes_at_most_one_succeeds_and_the_family_ends(ada: Person) -> None:
    answers = await asyncio.gather(*(ada.try_refresh() for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7
    [winner] = [answer.json()["refreshToken"] for answer in answers if answer.status_code == 200]
    assert (await ada.try_refresh(winner)).status_code == 401


async def test_logout_revokes_the_family(ada: Person) -> None:
    second = (await ada.try_refresh()).json()["refreshToken"]
    answer = await ada.client.post("/auth/logout", json={"refreshToken": second})
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await ada.try_refresh(second)).status_code == 401
    again = await ada.client.post("/auth/logout", json={"refreshToken": second})
    assert again.status_code == 204


async def test_no_refresh_survives_a_logout_that_it_races(ada: Person) -> None:
    for _ in range(5):
        await ada.log_in()
        refreshed, _ = await asyncio.gather(
            ada.try_refresh(), ada.client.post("/auth/logout", json={"refreshToken": ada.refresh_token})
        )
        if refreshed.status_code == 200:
            assert (await ada.try_refresh(refreshed.json()["refreshToken"])).status_code == 401


async def test_unknown_refresh_token_is_401_and_its_logout_204(client: httpx.AsyncClient) -> None:
    for refresh_token in ("unknown", "\N{SNOWMAN}", "x" * 200):
        body = {"refreshToken": refresh_token}
        assert (await client.post("/auth/refresh", json=body)).status_code == 401
        assert (await client.post("/auth/logout", json=body)).status_code == 204


@pytest.mark.parametrize("path", ["/auth/refresh", "/auth/logout"])
async def test_malformed_refresh_token_is_400(client: httpx.AsyncClient, path: str) -> None:
    malformed: list[Any] = [None, 7, "", "x" * 201, ["x"]]
    for refresh_token in malformed:
        answer = await client.post(path, json={"refreshToken": refresh_token})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "/refreshToken")


async def test_expired_refresh_token_is_refused_and_swept(
    ada: Person, database: Database, environment: dict[str, str]
) -> None:
    await database.run(
        "UPDATE refresh_tokens SET issued_at = now() - interval '40 days',"
        " expires_at = now() - interval '10 days' WHERE user_id = %s",
        ada.id,
    )
    assert (await ada.try_refresh()).status_code == 401
    await ada.log_in()
    async with create_pool(environment["AUTH_WORKER_DATABASE_URL"]) as pool:
        await forget_old_tokens(pool)
    [[left]] = await database.run("SELECT count(*) FROM refresh_tokens WHERE user_id = %s", ada.id)
    assert left == 1


async def test_refresh_that_dies_before_its_commit_uses_nothing_up(
    ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> str:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(KeyRing, "sign_access_token", die)
        assert (await ada.try_refresh()).status_code == 500
    assert (await ada.try_refresh()).status_code == 200


async def test_tokens_are_not_stored_as_they_are(ada: Person, database: Database) -> None:
    rows = await database.run("SELECT digest::text FROM refresh_tokens WHERE user_id = %s", ada.id)
    assert ada.refresh_token not in str(rows)
    assert ada.refresh_token.encode().hex() not in str(rows)


async def test_without_a_valid_token_me_is_401(client: httpx.AsyncClient) -> None:
    for header in ("", "Bearer", "Bearer ", "Bearer x.y.z", "Basic QTpC", "bearer \x7f"):
        answer = await client.get("/auth/me", headers={"Authorization": header})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), header
