"""Accounts: one for each e-mail address, passwords that nobody learns, changes that end all sessions."""

import asyncio
from typing import Any

import httpx
import pytest
from auth import passwords
from auth.passwords import PasswordHasher
from contracts.messages import UserDisabled, UserRegistered, UserTokensRevoked
from libs.ids import new_id
from litestar import Litestar

from services.auth.tests.support import PASSWORD, Database, Person, new_email

WELL_FORMED = {"email": "ada@example.com", "password": PASSWORD, "name": "Ada"}


async def test_registration_answers_a_session_and_tells_it_without_the_email(
    client: httpx.AsyncClient, database: Database
) -> None:
    email = new_email()
    answer = await client.post(
        "/auth/register", json={"email": email, "password": PASSWORD, "name": "Ada", "role": "admin"}
    )
    assert answer.status_code == 201
    assert "no-store" in answer.headers["cache-control"]
    session = answer.json()
    assert set(session) == {"token", "refreshToken", "expiresIn", "user"}
    assert session["expiresIn"] == 600
    assert session["user"] == {
        "id": session["user"]["id"],
        "email": email,
        "name": "Ada",
        "role": "user",
    }
    [registered] = await database.said(session["user"]["id"])
    assert isinstance(registered, UserRegistered)
    assert registered.role == "user"
    [[body]] = await database.run("SELECT body FROM outbox WHERE key = %s", session["user"]["id"])
    assert "@" not in body


async def test_login_takes_the_email_in_any_case(ada: Person) -> None:
    answer = await ada.try_log_in(email=ada.email.swapcase())
    assert answer.status_code == 200
    assert answer.json()["user"]["id"] == str(ada.id)
    assert (await ada.try_me(answer.json()["token"])).json() == answer.json()["user"]


async def test_parallel_registrations_of_one_email_make_one_account(
    client: httpx.AsyncClient, database: Database
) -> None:
    email = new_email()
    answers = await asyncio.gather(
        *(
            client.post("/auth/register", json={**WELL_FORMED, "email": spelling})
            for spelling in [email, email.upper(), email.lower()] * 3
        )
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 8
    assert {answer.json().get("code") for answer in answers} == {None, "email_taken"}
    [winner] = [answer.json()["user"]["id"] for answer in answers if answer.status_code == 201]
    assert len(await database.said(winner)) == 1
    [[accounts]] = await database.run("SELECT count(*) FROM users WHERE email_key = %s", email.casefold())
    assert accounts == 1


MALFORMED: list[tuple[str, Any]] = [
    *((name, wrong) for name in WELL_FORMED for wrong in (None, 7, True, [], {}, "", "x\x00y")),
    ("email", "ada"),
    ("email", "ada@example"),
    ("email", "a da@example.com"),
    ("email", "ada@example.com\n"),
    ("email", "ada@@example.com"),
    ("email", f"{'a' * 65}@example.com"),
    ("email", f"ada@{'a' * 250}.com"),
    ("password", "1234567"),
    ("password", "x" * 129),
    ("name", "x" * 201),
]


async def test_malformed_registration_is_refused_naming_the_field(client: httpx.AsyncClient) -> None:
    for field, value in MALFORMED:
        answer = await client.post("/auth/register", json={**WELL_FORMED, field: value})
        assert answer.status_code == 400, (field, value, answer.text)
        assert answer.json()["errors"][0]["pointer"] in (f"/{field}", "/"), (field, value)


@pytest.mark.parametrize("path", ["register", "login", "refresh", "logout"])
async def test_what_is_no_such_body_is_400(client: httpx.AsyncClient, path: str) -> None:
    for body in (b"", b"{", b"[]", b"null", b"\xff", b'{"email":"\\ud800"}', b"{}"):
        answer = await client.post(
            f"/auth/{path}", content=body, headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), body


async def test_passwords_of_eight_and_128_characters_do(client: httpx.AsyncClient) -> None:
    for password in ("\N{SNOWMAN}" * 8, "x" * 128):
        person = await Person(client, password=password).register()
        await person.log_in()


async def test_login_tells_no_difference_between_no_account_wrong_password_and_disabled(
    client: httpx.AsyncClient, ada: Person, admin: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    disabled = await Person(client).register()
    assert (await admin.try_change_user(disabled.id, {"disabled": True})).status_code == 200
    hashed: list[str] = []
    verify = passwords._verify  # pyright: ignore[reportPrivateUsage]

    def count(password: str, phc: str) -> bool:
        hashed.append(phc)
        return verify(password, phc)

    monkeypatch.setattr(passwords, "_verify", count)
    answers = [
        await ada.try_log_in(email=new_email()),
        await ada.try_log_in(password="wrong horse"),
        await ada.try_log_in(password=""),
        await disabled.try_log_in(),
    ]
    assert {answer.status_code for answer in answers} == {401}
    documents = [answer.json() | {"traceId": ""} for answer in answers]
    assert all(document == documents[0] for document in documents)
    assert documents[0]["message"] == "Invalid email or password"
    # Every one of them has cost one hash with the same parameters.
    assert len(hashed) == 4
    assert len({phc.rsplit("$", 2)[0] for phc in hashed}) == 1


async def test_logins_beyond_the_waiting_places_are_503_with_retry_after(app: Litestar, ada: Person) -> None:
    hasher = PasswordHasher(threads=1, max_waiting=1)
    object.__setattr__(app.state.accounts, "hasher", hasher)
    # Of accounts of their own: those of one account wait for each other.
    others = [Person(ada.client, email=new_email()) for _ in range(12)]
    answers = await asyncio.gather(*(each.try_log_in() for each in others))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {401, 503}
    assert {answer.headers.get("retry-after") for answer in answers} == {None, "1"}
    assert (await ada.try_log_in()).status_code == 200, "the places are free again"
    hasher.close()


async def test_changed_password_ends_all_sessions_and_tells(ada: Person, database: Database) -> None:
    old_token, old_refresh = ada.token, ada.refresh_token
    other = await Person(ada.client, email=ada.email).log_in()
    answer = await ada.try_change_password(PASSWORD, "battery staple")
    assert answer.status_code == 204
    for token in (old_token, other.token):
        assert (await ada.try_me(token)).status_code == 401
    for refresh_token in (old_refresh, other.refresh_token):
        assert (await ada.try_refresh(refresh_token)).status_code == 401
    assert (await ada.try_log_in()).status_code == 401
    ada.password = "battery staple"
    await ada.log_in()
    assert (await ada.try_me()).status_code == 200, "a token issued right after the change is good"
    assert [type(each) for each in await database.said(ada.id)] == [UserRegistered, UserTokensRevoked]


async def test_wrong_current_password_changes_nothing(ada: Person, database: Database) -> None:
    answer = await ada.try_change_password("wrong horse", "battery staple")
    assert (answer.status_code, answer.json()["code"]) == (403, "wrong_password")
    await ada.log_in()
    assert len(await database.said(ada.id)) == 1


async def test_of_parallel_password_changes_one_wins(ada: Person, database: Database) -> None:
    new_passwords = [f"battery staple {number}" for number in range(4)]
    answers = await asyncio.gather(*(ada.try_change_password(PASSWORD, new) for new in new_passwords))
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(204) == 1
    # The others found it changed before or after they had hashed.
    assert set(statuses) <= {204, 401, 403}
    ada.password = new_passwords[statuses.index(204)]
    await ada.log_in()
    assert len(await database.said(ada.id)) == 2


async def test_password_change_that_dies_before_its_commit_leaves_everything(
    client: httpx.AsyncClient, ada: Person, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("auth.users.outbox.publish", die)
        assert (await ada.try_change_password(PASSWORD, "battery staple")).status_code == 500
    assert (await ada.try_me()).status_code == 200
    assert len(await database.said(ada.id)) == 1
    assert (await ada.try_change_password(PASSWORD, "battery staple")).status_code == 204


async def test_admin_disables_and_enables(ada: Person, admin: Person, database: Database) -> None:
    answer = await admin.try_change_user(ada.id, {"disabled": True})
    assert answer.status_code == 200
    assert answer.json() == {
        "id": str(ada.id),
        "email": ada.email,
        "name": "Ada",
        "role": "user",
        "disabled": True,
    }
    assert (await ada.try_me()).status_code == 401
    assert (await ada.try_refresh()).status_code == 401
    again = await admin.try_change_user(ada.id, {"disabled": True})
    assert again.json() == answer.json()
    assert (await admin.try_change_user(ada.id, {"disabled": False})).json()["disabled"] is False
    assert (await ada.try_me()).status_code == 401, "what was revoked stays revoked"
    await ada.log_in()
    [_, disabled] = await database.said(ada.id)
    assert isinstance(disabled, UserDisabled)


async def test_changed_role_ends_sessions_and_is_in_the_next_token(
    ada: Person, admin: Person, database: Database
) -> None:
    assert (await admin.try_change_user(ada.id, {"role": "scanner"})).json()["role"] == "scanner"
    assert (await ada.try_me()).status_code == 401
    assert (await (await ada.log_in()).try_me()).json()["role"] == "scanner"
    assert (await admin.try_change_user(ada.id, {"role": "scanner"})).status_code == 200
    assert (await admin.try_change_user(ada.id, {})).status_code == 200
    assert (await ada.try_me()).status_code == 200, "nothing changed"
    assert [type(each) for each in await database.said(ada.id)] == [UserRegistered, UserTokensRevoked]


async def test_only_admins_change_users(client: httpx.AsyncClient, ada: Person) -> None:
    answer = await ada.try_change_user(ada.id, {"role": 7})
    assert answer.status_code == 403
    assert "Admin" in answer.json()["message"]
    assert (await client.patch(f"/auth/users/{ada.id}", json={"role": "admin"})).status_code == 401


async def test_malformed_change_of_a_user_is_refused_naming_the_field(ada: Person, admin: Person) -> None:
    malformed: list[tuple[Any, str]] = [
        ({"role": "owner"}, "/role"),
        ({"role": None}, "/role"),
        ({"disabled": "yes"}, "/disabled"),
        ({"disabled": None}, "/disabled"),
        ({"email": "other@example.com"}, "/email"),
        ([], "/"),
    ]
    for change, pointer in malformed:
        answer = await admin.try_change_user(ada.id, change)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, pointer), change


async def test_change_of_nobody_is_404_and_of_no_id_400(admin: Person) -> None:
    assert (await admin.try_change_user(new_id(), {"disabled": True})).status_code == 404
    answer = await admin.try_change_user("7", {"disabled": True})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "path/user_id")


async def test_no_login_survives_a_disabling_that_it_races(ada: Person, admin: Person) -> None:
    for _ in range(5):
        logins = [ada.try_log_in() for _ in range(3)]
        *answers, disabled = await asyncio.gather(*logins, admin.try_change_user(ada.id, {"disabled": True}))
        assert disabled.status_code == 200
        for answer in answers:
            assert answer.status_code in (200, 401)
            if answer.status_code == 200:
                assert (await ada.try_me(answer.json()["token"])).status_code == 401
                assert (await ada.try_refresh(answer.json()["refreshToken"])).status_code == 401
        assert (await admin.try_change_user(ada.id, {"disabled": False})).status_code == 200


async def test_no_answer_or_log_line_has_a_secret(
    ada: Person, admin: Person, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    [[phc]] = await database.run("SELECT password_phc FROM users WHERE id = %s", ada.id)
    answers = [
        await ada.try_log_in(),
        await ada.try_me(),
        await ada.try_refresh(),
        await ada.try_refresh(),
        await admin.try_change_user(ada.id, {}),
    ]
    assert not [answer for answer in answers if "argon2" in answer.text or PASSWORD in answer.text]
    for secret in (phc, PASSWORD, ada.email, ada.refresh_token, ada.token):
        assert secret not in caplog.text
