"""Makes admins and scanners: there is no default one, and no default password.

python -m auth.admin create EMAIL [--role admin|scanner] [--name NAME] [--promote]

The password comes from `ADMIN_PASSWORD`, or is asked for on the terminal, or is the first line of standard
input. An account that has the role already is left as it is. Reads `AUTH_DATABASE_URL`.
"""

import argparse
import asyncio
import getpass
import sys
from collections.abc import Callable

import msgspec
import psycopg
from libs.postgres import Conn

from auth import queries
from auth.errors import EmailTaken
from auth.models import Role
from auth.passwords import PasswordHasher
from auth.routes import Email, NewPassword
from auth.settings import settings_of
from auth.users import change_user, create_user, email_key


class Refused(Exception):
    """The command cannot do this; its text says why."""


async def create_admin(
    conn: Conn, *, email: str, name: str, role: Role, promote: bool, ask_password: Callable[[], str]
) -> str:
    """What was done, as a line for the screen. Raises `Refused`. `conn` is in autocommit mode."""
    found = await queries.find_user_by_email(conn, email_key(email))
    kind = "an admin" if role == Role.ADMIN else f"a {role}"
    if found is not None and found.role == role and found.disabled_at is None:
        return f"{found.email} is {kind} already"
    if found is not None and not promote:
        trouble = "is disabled" if found.role == role else f"exists with the role {found.role}"
        raise Refused(f"{found.email} {trouble}: --promote makes it {kind} who can log in")
    if found is not None:
        async with conn.transaction():
            await change_user(conn, found.id, role=role, disabled=False)
        return f"{found.email} is {kind} now, with the password it had"
    password = _checked(ask_password(), NewPassword, "the password")
    hasher = PasswordHasher(threads=1)
    try:
        async with conn.transaction():
            await create_user(
                conn,
                email=_checked(email, Email, "the e-mail address"),
                name=name,
                role=role,
                password_phc=await hasher.hash(password),
            )
    finally:
        hasher.close()
    return f"{email} is {kind} now"


def _checked(value: str, kind: object, what: str) -> str:
    try:
        return msgspec.convert(value, kind)  # pyright: ignore[reportArgumentType, reportCallIssue]  # an annotated str
    except msgspec.ValidationError as error:
        raise Refused(f"{what}: {error}") from None


def _ask_password(given: str) -> str:
    if given:
        return given
    if sys.stdin.isatty():
        return getpass.getpass("Password of the new account: ")
    return sys.stdin.readline().rstrip("\r\n")


async def _create(email: str, *, name: str, role: Role, promote: bool) -> str:
    settings = settings_of("app")
    async with await psycopg.AsyncConnection.connect(
        settings.database_url, autocommit=True, connect_timeout=5
    ) as conn:
        for _ in range(2):
            try:
                return await create_admin(
                    conn,
                    email=email,
                    name=name,
                    role=role,
                    promote=promote,
                    ask_password=lambda: _ask_password(settings.admin_password),
                )
            except EmailTaken:
                continue  # somebody else was quicker: look at what is there now
    raise Refused(f"{email} is being registered at this moment")


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m auth.admin", description="Makes admins and scanners.")
    create = parser.add_subparsers(dest="command", required=True).add_parser("create", help="make an account")
    create.add_argument("email", metavar="EMAIL")
    create.add_argument("--role", type=Role, choices=[Role.ADMIN, Role.SCANNER], default=Role.ADMIN)
    create.add_argument("--name", default="Staff")
    create.add_argument("--promote", action="store_true", help="give an existing account the role")
    arguments = parser.parse_args()
    creation = _create(arguments.email, name=arguments.name, role=arguments.role, promote=arguments.promote)
    try:
        print(asyncio.run(creation))
    except Refused as refused:
        sys.exit(f"admin: {refused}")
    except psycopg.OperationalError as error:
        sys.exit(f"admin: the database does not answer: {str(error).strip()}")


if __name__ == "__main__":
    _main()
