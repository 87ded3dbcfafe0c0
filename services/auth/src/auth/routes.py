"""The HTTP surface of accounts and tokens."""

from typing import Annotated, Any
from uuid import UUID

from libs.postgres import transaction
from libs.web.access import admin, anyone, authenticated
from libs.web.etags import etag_response
from libs.web.limits import UNLIMITED, client_network
from libs.web.problems import Unauthenticated
from libs.web.tokens import Caller
from litestar import Request, Response, Router, get, patch, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, Meta, Struct, UnsetType

from auth import queries
from auth.models import Role
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
RefreshToken = Annotated[str, Meta(min_length=1, max_length=200)]

NO_STORE = {"Cache-Control": "no-store"}
TOKEN = [{"token": list[str]()}]


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
    email: str
    name: str
    role: Role
    disabled: bool


@post("/auth/register", guards=[anyone], opt={"limit": "registrations"}, summary="Make an account")
async def register(data: JSONBody[Registration], request: Request[Any, Any, Any], state: State) -> Session:
    """Answers like a login. An e-mail address that is taken, in whatever case, is 409 `email_taken`."""
    return await state.accounts.register(
        email=data.email, password=data.password, name=data.name, network=client_network(request)
    )


@post("/auth/login", guards=[anyone], opt={"limit": "logins"}, status_code=200, summary="Log in")
async def log_in(data: JSONBody[Credentials], request: Request[Any, Any, Any], state: State) -> Session:
    """401 `invalid_credentials` does not tell whether the account exists."""
    return await state.accounts.log_in(
        email=data.email, password=data.password, network=client_network(request)
    )


@post("/auth/refresh", guards=[anyone], status_code=200, summary="Exchange a refresh token for a new pair")
async def refresh(data: JSONBody[RefreshRequest], state: State) -> Session:
    """A refresh token is good for one use; used again, it ends the whole session: log in again."""
    return await state.sessions.renew(state.pool, data.refresh_token)


@post("/auth/logout", guards=[anyone], status_code=204, summary="End a session")
async def log_out(data: JSONBody[RefreshRequest], state: State) -> None:
    """The refresh token and all of its line are revoked. The access token lives on for its last minutes."""
    await state.sessions.end(state.pool, data.refresh_token)


@get("/auth/me", guards=[authenticated], security=TOKEN, summary="The caller's account")
async def me(caller: NamedDependency[Caller], state: State) -> Account:
    async with state.pool.connection() as conn:
        user = await queries.find_user_by_token(conn, caller.user_id, issued_at=caller.issued_at)
    if user is None:
        raise Unauthenticated
    return account_of(user)


@post(
    "/auth/password",
    guards=[authenticated],
    security=TOKEN,
    status_code=204,
    summary="Change the caller's password",
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
    security=TOKEN,
    summary="Change a user's role, disable or enable a user",
)
async def change_user_state(user_id: FromPath[UUID], data: JSONBody[UserChange], state: State) -> UserState:
    """A change of role and a disabling end all sessions of the user everywhere."""
    async with transaction(state.pool) as conn:
        user = await change_user(
            conn,
            user_id,
            role=None if data.role is UNSET else data.role,
            disabled=None if data.disabled is UNSET else data.disabled,
        )
    return UserState(user.id, user.email, user.name, user.role, user.disabled_at is not None)


@get(
    "/.well-known/jwks.json",
    guards=[anyone],
    opt=UNLIMITED,
    tags=["keys"],
    summary="The public keys of access tokens",
)
async def jwks(request: Request[Any, Any, Any], state: State) -> Response[bytes]:
    """A JSON Web Key Set (RFC 7517)."""
    return etag_response(
        request, state.key_ring.jwks, etag=state.key_ring.jwks_etag, cache_control="public, max-age=300"
    )


ROUTES = [
    Router(
        "/",
        route_handlers=[register, log_in, refresh, log_out, me, change_password, change_user_state],
        tags=["auth"],
        response_headers=NO_STORE,
    ),
    jwks,
]
