"""The commands: admins without a default password, keys; and the worker, which sends what auth has to say."""

import asyncio
import os
import subprocess
import sys
from uuid import UUID

import httpx
from aiokafka import AIOKafkaConsumer
from contracts.messages import UserRegistered
from libs.messaging.topics import create_topics

from services.auth.tests.support import Database, Person, new_email

PASSWORD = "secret123"


async def run(
    *arguments: str, environment: dict[str, str], password: str = "", text: str = ""
) -> tuple[int, str]:
    variables = {
        name: value for name, value in {**os.environ, **environment}.items() if name != "ADMIN_PASSWORD"
    }
    if password:
        variables["ADMIN_PASSWORD"] = password
    done = await asyncio.to_thread(
        subprocess.run,
        (sys.executable, "-m", *arguments),
        env=variables,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


async def test_made_admin_can_log_in_and_making_it_again_changes_nothing(
    client: httpx.AsyncClient, environment: dict[str, str], database: Database
) -> None:
    boss = Person(client, email=new_email(), password=PASSWORD)
    code, output = await run("auth.admin", "create", boss.email, environment=environment, password=PASSWORD)
    assert (code, output) == (0, f"{boss.email} is an admin now\n")
    await boss.log_in()
    assert (await boss.try_me()).json()["role"] == "admin"
    [registered] = await database.said(boss.id)
    assert isinstance(registered, UserRegistered)
    assert registered.role == "admin"
    code, output = await run(
        "auth.admin", "create", boss.email.upper(), environment=environment, password="another one"
    )
    assert code == 0
    assert "already" in output
    await boss.log_in()


async def test_admin_gets_no_default_password(environment: dict[str, str]) -> None:
    code, output = await run("auth.admin", "create", new_email(), environment=environment)
    assert code == 1
    assert "password" in output
    code, output = await run("auth.admin", "create", new_email(), environment=environment, text="12345678\n")
    assert code == 0, output
    code, output = await run("auth.admin", "create", "nobody", environment=environment, password=PASSWORD)
    assert code == 1
    assert "e-mail" in output


async def test_account_of_a_user_becomes_an_admin_only_when_asked_to(
    ada: Person, environment: dict[str, str]
) -> None:
    code, output = await run("auth.admin", "create", ada.email, environment=environment, password=PASSWORD)
    assert code == 1
    assert "--promote" in output
    code, output = await run("auth.admin", "create", ada.email, "--promote", environment=environment)
    assert code == 0, output
    assert (await ada.try_me()).status_code == 401, "the role of a token is settled"
    await ada.log_in()
    assert (await ada.try_me()).json()["role"] == "admin"


async def test_scanner_is_made_by_command(
    client: httpx.AsyncClient, ada: Person, environment: dict[str, str]
) -> None:
    door = Person(client, email=new_email(), password=PASSWORD)
    create = ("auth.admin", "create")
    code, output = await run(
        *create, door.email, "--role", "scanner", environment=environment, password=PASSWORD
    )
    assert (code, output) == (0, f"{door.email} is a scanner now\n")
    await door.log_in()
    assert (await door.try_me()).json()["role"] == "scanner"
    code, output = await run(*create, ada.email, "--role", "scanner", "--promote", environment=environment)
    assert code == 0, output
    assert (await (await ada.log_in()).try_me()).json()["role"] == "scanner"


async def test_keys_are_rotated_and_listed(ada: Person, environment: dict[str, str]) -> None:
    code, rotated = await run("auth.keys", "rotate", "--after", "60", environment=environment)
    assert code == 0, rotated
    new = rotated.split()[0]
    code, listed = await run("auth.keys", "list", environment=environment)
    assert code == 0, listed
    [line] = [line for line in listed.splitlines() if line.startswith(new)]
    assert "waits" in line
    assert "signs" in listed
    code, refused = await run("auth.keys", "rotate", "--after", "5", environment=environment)
    assert code == 2
    assert "at least 10" in refused


async def test_commands_say_in_one_line_that_the_database_is_away(environment: dict[str, str]) -> None:
    away = {**environment, "AUTH_DATABASE_URL": "postgresql://auth_app:x@127.0.0.1:1/ticketing"}
    for command in (("auth.admin", "create", new_email()), ("auth.keys", "list")):
        code, output = await run(*command, environment=away, password=PASSWORD)
        assert code == 1
        assert "database does not answer" in output
        assert "Traceback" not in output


async def test_worker_sends_what_was_said(ada: Person, environment: dict[str, str]) -> None:
    await create_topics(environment["KAFKA_BROKERS"])
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "auth.worker", env={**os.environ, **environment}
    )
    consumer = AIOKafkaConsumer(
        "auth.users", bootstrap_servers=environment["KAFKA_BROKERS"], auto_offset_reset="earliest"
    )
    await consumer.start()
    headers: dict[str, bytes] = {}
    try:
        async with asyncio.timeout(30):
            while not headers:
                record = await consumer.getone()
                if record.key == str(ada.id).encode():
                    headers = dict(record.headers)
    finally:
        await consumer.stop()
        worker.terminate()
        assert await worker.wait() == 0
    assert headers["ce_type"] == b"user.registered"
    assert UUID(headers["ce_id"].decode())
