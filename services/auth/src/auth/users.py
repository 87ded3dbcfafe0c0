"""Accounts: registration, login, passwords, roles."""

from dataclasses import dataclass
from uuid import UUID

from contracts.messages import UserDisabled, UserRegistered, UserTokensRevoked
from libs.ids import new_id
from libs.messaging import outbox
from libs.postgres import Conn, Pool, transaction
from libs.web.problems import NotFound, Unauthenticated

from auth import queries
from auth.errors import EmailTaken, InvalidCredentials, WrongPassword
from auth.guesses import Guesses, Network
from auth.models import Role, User
from auth.passwords import PasswordHasher
from auth.sessions import Session, Sessions


@dataclass(frozen=True)
class Accounts:
    """The use cases that need a hasher, and most of them sessions too."""

    pool: Pool
    hasher: PasswordHasher
    sessions: Sessions
    guesses: Guesses

    async def register(self, *, email: str, password: str, name: str, network: Network) -> Session:
        """Raises `EmailTaken`."""
        password_phc = await self.hasher.hash(password)
        async with transaction(self.pool) as conn:
            user = await create_user(conn, email=email, name=name, role=Role.USER, password_phc=password_phc)
            await queries.remember_network(conn, user.id, network)
            return await self.sessions.open(conn, user)

    async def log_in(self, *, email: str, password: str, network: Network) -> Session:
        """Raises `InvalidCredentials`, after the same time whatever the reason; `RateLimited`."""
        async with self.pool.connection() as conn:
            found = await queries.find_user_by_email(conn, email_key(email))
            is_known = await queries.is_known_network(conn, email_key(email), network)
        # No connection is kept meanwhile.
        async with self.guesses.at_login(email_key(email), network=network, is_known_network=is_known):
            matches = await self.hasher.verify(password, found.password_phc if found else None)
            if found is None or not matches or found.disabled_at is not None:
                raise InvalidCredentials
        async with transaction(self.pool) as conn:
            user = await queries.lock_user(conn, found.id)
            if user is None or user.disabled_at is not None or user.password_phc != found.password_phc:
                raise InvalidCredentials
            await queries.remember_network(conn, user.id, network)
            return await self.sessions.open(conn, user)

    async def change_password(
        self, *, user_id: UUID, issued_at: float, current_password: str, new_password: str
    ) -> None:
        """Logs the user out everywhere. Raises `Unauthenticated`, `WrongPassword` or `RateLimited`."""
        async with self.pool.connection() as conn:
            user = await queries.find_user_by_token(conn, user_id, issued_at=issued_at)
        if user is None:
            raise Unauthenticated
        async with self.guesses.at_password_change(user_id):
            if not await self.hasher.verify(current_password, user.password_phc):
                raise WrongPassword("The current password is not right.")
        new_phc = await self.hasher.hash(new_password)
        async with transaction(self.pool) as conn:
            if not await queries.update_password(conn, user_id, old_phc=user.password_phc, new_phc=new_phc):
                raise WrongPassword("The password was changed a moment ago.")
            await revoke_tokens(conn, user_id)


def email_key(email: str) -> str:
    """What two spellings of one e-mail address have in common."""
    return email.casefold()


async def create_user(conn: Conn, *, email: str, name: str, role: Role, password_phc: str) -> User:
    """Raises `EmailTaken`."""
    user = User(id=new_id(), email=email, name=name, role=role, password_phc=password_phc, disabled_at=None)
    registered_at = await queries.insert_user(
        conn,
        user_id=user.id,
        email=email,
        email_key=email_key(email),
        name=name,
        role=role,
        password_phc=password_phc,
    )
    if registered_at is None:
        raise EmailTaken("An account with this e-mail address exists.")
    await outbox.publish(conn, UserRegistered(user_id=user.id, role=role.value, registered_at=registered_at))
    return user


async def change_user(conn: Conn, user_id: UUID, *, role: Role | None, disabled: bool | None) -> User:
    """None leaves as it is. A change of role and a disabling log the user out everywhere.

    Raises `NotFound`.
    """
    before = await queries.lock_user(conn, user_id)
    if before is None:
        raise NotFound("There is no such user.")
    was_disabled = before.disabled_at is not None
    role = Role(before.role) if role is None else role
    disabled = was_disabled if disabled is None else disabled
    disabled_at = await queries.update_role_and_state(conn, user_id, role=role, disabled=disabled)
    if disabled_at is not None and not was_disabled:
        await queries.revoke_refresh_tokens(conn, user_id)
        not_before = await queries.revoke_access_tokens(conn, user_id)
        await outbox.publish(conn, UserDisabled(user_id=user_id, disabled_at=not_before))
    elif role != before.role:
        await revoke_tokens(conn, user_id)
    return User(
        id=user_id,
        email=before.email,
        name=before.name,
        role=role,
        password_phc=before.password_phc,
        disabled_at=disabled_at,
    )


async def revoke_tokens(conn: Conn, user_id: UUID) -> None:
    """Ends all sessions of a user, in every service. `conn` holds the lock of the user's row."""
    await queries.revoke_refresh_tokens(conn, user_id)
    not_before = await queries.revoke_access_tokens(conn, user_id)
    await outbox.publish(conn, UserTokensRevoked(user_id=user_id, not_before=not_before))
