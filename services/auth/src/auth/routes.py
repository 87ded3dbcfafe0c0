"""The HTTP surface of accounts and tokens."""

from typing import Annotated, Any
from uuid import UUID

from libs.postgres import transaction
from libs.web.access import admin, anyone, authenticated
from libs.web.created import created
from libs.web.etags import IfMatch, PreconditionFailed, etag_response, require_match, tagged
from libs.web.fields import EmailAddress
from libs.web.keys import KeySet
from libs.web.limits import UNLIMITED, client_network
from libs.web.openapi import describe
from libs.web.problems import Unauthenticated
from libs.web.tokens import Caller
from litestar import Request, Response, Router, get, patch, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, Meta, Struct, UnsetType

from auth import queries
from auth.errors import EmailTaken, InvalidCredentials, InvalidRefreshToken, WrongPassword
from auth.models import Role, User
from auth.sessions import Account, Session, account_of
from auth.users import change_user

# RFC 5321, section 4.5.3.1: 64 characters before the @, 254 in all. `(?!\n)`: `$` would take a newline.
_PART = r"[^\s\x00-\x1f\x7f@\",:;<>()\[\]\\]"
Email = Annotated[
    str,
    Meta(
        min_length=3,
        max_length=254,
        pattern=rf"^{_PART}{{1,64}}@{_PART}+\.{_PART}+$(?!\n)",
        description="Case does not matter",
        examples=["ada@example.com"],
    ),
]
NewPassword = Annotated[
    str, Meta(min_length=8, max_length=128, description="8 to 128 characters", examples=["correct horse"])
]
# Rules for new passwords must not tell about old ones.
GivenPassword = Annotated[str, Meta(max_length=1024, examples=["correct horse"])]
RefreshToken = Annotated[
    str, Meta(min_length=1, max_length=200, examples=["x4m1c0Jv4y0nF6bVdQdmDqQ3X9yqTg7F"])
]


class Registration(Struct, frozen=True):
    email: Email
    password: NewPassword
    name: Annotated[str, Meta(min_length=1, max_length=200, examples=["Ada Lovelace"])]


class Credentials(Struct, frozen=True):
    email: Annotated[str, Meta(max_length=254, examples=["ada@example.com"])]
    password: GivenPassword


class RefreshRequest(Struct, frozen=True, rename="camel"):
    refresh_token: RefreshToken


class PasswordChange(Struct, frozen=True, rename="camel"):
    current_password: GivenPassword
    new_password: NewPassword


class UserChange(Struct, frozen=True, forbid_unknown_fields=True):
    """What is left out stays as it is."""

    role: Role | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET


class UserState(Struct, frozen=True):
    id: UUID
    email: EmailAddress
    name: Annotated[str, Meta(examples=["Ada Lovelace"])]
    role: Role
    disabled: bool


@post(
    "/auth/register",
    guards=[anyone],
    summary="Make an account",
    opt={"limit": "registrations"} | describe(EmailTaken),
)
async def register(
    data: JSONBody[Registration], request: Request[Any, Any, Any], state: State
) -> Response[Session]:
    """Answers like a login. An e-mail address that is taken, in whatever case, is 409 `email_taken`."""
    session = await state.accounts.register(
        email=data.email, password=data.password, name=data.name, network=client_network(request)
    )
    return created(session, "/auth/me")


@post(
    "/auth/login",
    guards=[anyone],
    status_code=200,
    summary="Log in",
    opt={"limit": "logins"} | describe(InvalidCredentials),
)
async def log_in(data: JSONBody[Credentials], request: Request[Any, Any, Any], state: State) -> Session:
    """401 `invalid_credentials` does not tell whether the account exists."""
    return await state.accounts.log_in(
        email=data.email, password=data.password, network=client_network(request)
    )


@post(
    "/auth/refresh",
    guards=[anyone],
    status_code=200,
    summary="Exchange a refresh token for a new pair",
    opt=describe(InvalidRefreshToken),
)
async def refresh(data: JSONBody[RefreshRequest], state: State) -> Session:
    """A refresh token is good for one use; used again, it ends the whole session: log in again."""
    return await state.sessions.renew(state.pool, data.refresh_token)


@post("/auth/logout", guards=[anyone], status_code=204, summary="End a session")
async def log_out(data: JSONBody[RefreshRequest], state: State) -> None:
    """The refresh token and all of its line are revoked. The access token lives on for its last minutes."""
    await state.sessions.end(state.pool, data.refresh_token)


@get("/auth/me", guards=[authenticated], summary="The caller's account")
async def get_me(caller: NamedDependency[Caller], state: State) -> Account:
    async with state.pool.connection() as conn:
        user = await queries.find_user_by_token(conn, caller.user_id, issued_at=caller.issued_at)
    if user is None:
        raise Unauthenticated
    return account_of(user)


@post(
    "/auth/password",
    guards=[authenticated],
    status_code=204,
    summary="Change the caller's password",
    opt=describe(WrongPassword),
)
async def change_password(
    data: JSONBody[PasswordChange], caller: NamedDependency[Caller], state: State
) -> None:
    """Ends all sessions of the caller everywhere, this one too: log in again."""
    await state.accounts.change_password(
        user_id=caller.user_id,
        issued_at=caller.issued_at,
        current_password=data.current_password,
        new_password=data.new_password,
    )


@patch(
    "/auth/users/{user_id:str}",
    guards=[admin],
    summary="Change a user's role, disable or enable a user",
    opt=describe(PreconditionFailed),
)
async def change_user_state(
    user_id: FromPath[UUID], data: JSONBody[UserChange], state: State, if_match: IfMatch = None
) -> Response[UserState]:
    """A change of role and a disabling end all sessions of the user everywhere."""
    async with transaction(state.pool) as conn:
        if if_match is not None and (before := await queries.lock_user(conn, user_id)) is not None:
            require_match(if_match, _state_of(before))
        user = await change_user(
            conn,
            user_id,
            role=None if data.role is UNSET else data.role,
            disabled=None if data.disabled is UNSET else data.disabled,
        )
    return tagged(_state_of(user))


def _state_of(user: User) -> UserState:
    return UserState(user.id, user.email, user.name, user.role, user.disabled_at is not None)


@get(
    "/.well-known/jwks.json",
    guards=[anyone],
    tags=["keys"],
    summary="The public keys of access tokens",
    opt=UNLIMITED | describe(answer=KeySet),
)
async def get_jwks(state: State) -> Response[bytes]:
    """A JSON Web Key Set (RFC 7517)."""
    return etag_response(
        state.key_ring.jwks, etag=state.key_ring.jwks_etag, cache_control="public, max-age=300"
    )


ROUTES = [
    Router(
        "/",
        route_handlers=[register, log_in, refresh, log_out, get_me, change_password, change_user_state],
        tags=["auth"],
    ),
    get_jwks,
]
