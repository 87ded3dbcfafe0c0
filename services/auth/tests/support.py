"""What auth's tests are told with: people with accounts, a look behind the service."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import psycopg
from contracts.messages import MESSAGE_TYPES, Message
from httpx import Response

PASSWORD = "correct horse"


def new_email() -> str:
    return f"Ada.{uuid4().hex}@Example.com"


@dataclass
class Person:
    """Someone who registers and logs in."""

    client: httpx.AsyncClient
    email: str = field(default_factory=new_email)
    password: str = PASSWORD
    id: UUID | None = None
    token: str = ""
    refresh_token: str = ""

    async def register(self) -> "Person":
        body = {"email": self.email, "password": self.password, "name": "Ada"}
        answer = await self.client.post("/auth/register", json=body)
        assert answer.status_code == 201, answer.text
        return self._keep(answer)

    async def try_log_in(self, **other: str) -> Response:
        body = {"email": self.email, "password": self.password, **other}
        return await self.client.post("/auth/login", json=body)

    async def log_in(self) -> "Person":
        answer = await self.try_log_in()
        assert answer.status_code == 200, answer.text
        return self._keep(answer)

    async def try_refresh(self, refresh_token: str | None = None) -> Response:
        return await self.client.post(
            "/auth/refresh", json={"refreshToken": refresh_token or self.refresh_token}
        )

    async def try_me(self, token: str | None = None) -> Response:
        return await self.client.get("/auth/me", headers=self.headers(token))

    async def try_change_password(self, current: str, new: str) -> Response:
        body = {"currentPassword": current, "newPassword": new}
        return await self.client.post("/auth/password", json=body, headers=self.headers())

    async def try_change_user(self, user_id: Any, change: Any) -> Response:
        return await self.client.patch(f"/auth/users/{user_id}", json=change, headers=self.headers())

    def headers(self, token: str | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {token or self.token}"}

    def _keep(self, answer: Response) -> "Person":
        session = answer.json()
        self.id = UUID(session["user"]["id"])
        self.token, self.refresh_token = session["token"], session["refreshToken"]
        return self


@dataclass(frozen=True)
class Database:
    """Looks behind the service, and moves its clock."""

    url: str

    async def run(self, query: str, *parameters: Any) -> list[Any]:
        async with await psycopg.AsyncConnection.connect(
            self.url, autocommit=True, options="-c search_path=auth"
        ) as conn:
            cursor = await conn.execute(query.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []

    async def said(self, user_id: UUID | None) -> list[Message]:
        """Messages in the outbox about a user, decoded by their contracts, oldest first."""
        rows = await self.run(
            "SELECT type, version, body FROM outbox WHERE key = %s ORDER BY id", str(user_id)
        )
        return [msgspec.json.decode(body, type=MESSAGE_TYPES[name, version]) for name, version, body in rows]
