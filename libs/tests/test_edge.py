"""What every answer has: request id, security headers, Cache-Control, entity tag; what is refused at once."""

from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from libs.settings import ServiceSettings
from libs.testing import Serve, Tokens
from libs.web.access import anyone, authenticated
from libs.web.application import create_service_app
from libs.web.etags import IfMatch, require_match, tagged
from libs.web.openapi import describe
from libs.web.paging import Cursor, Limit, page_response
from libs.web.problems import TemporarilyUnavailable
from litestar import Litestar, Request, Response, get, patch, post
from litestar.params import JSONBody
from msgspec import Struct


class Thing(Struct, frozen=True):
    id: int
    name: str


THINGS = [Thing(number, f"n{number}") for number in range(5)]


@get("/things", guards=[anyone], summary="Things")
async def list_things(
    request: Request[Any, Any, Any], limit: Limit = None, cursor: Cursor = None
) -> Response[list[Thing]]:
    return page_response(request, THINGS[: None if limit is None else limit + 1], limit=limit)


@get("/mine", guards=[authenticated], summary="Mine")
async def read_mine() -> Thing:
    return THINGS[0]


@patch("/mine", guards=[authenticated], summary="Change")
async def change_mine(data: JSONBody[Thing], if_match: IfMatch = None) -> Response[Thing]:
    require_match(if_match, THINGS[0])
    return tagged(data)


@post("/busy", guards=[anyone], summary="Busy", opt=describe(TemporarilyUnavailable))
async def be_busy() -> None:
    raise TemporarilyUnavailable("Not now.", retry_after=7)


@pytest.fixture
def app(environment: dict[str, str]) -> Litestar:
    settings = ServiceSettings(
        database_url=environment["INVENTORY_DATABASE_URL"],
        jwks_url="http://127.0.0.1:1/none",
        frontend_url="https://shop.example, https://admin.example",
        allowed_hosts="localhost,tickets.example",
    )
    return create_service_app(
        settings, service="inventory", title="Test", routes=[list_things, read_mine, change_mine, be_busy]
    )


@pytest_asyncio.fixture
async def client(app: Litestar, serve: Serve) -> AsyncGenerator[httpx.AsyncClient]:
    async with serve(app) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/things", 200),
        ("GET", "/nowhere", 404),
        ("PUT", "/things", 405),
        ("GET", "/mine", 401),
        ("POST", "/busy", 503),
        ("GET", "/things?limit=0", 400),
        ("GET", "/openapi.json", 200),
    ],
)
async def test_every_answer_says_how_it_is_to_be_treated(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path, headers={"X-Request-Id": "from-the-client.1"})
    assert answer.status_code == status
    assert answer.headers["x-request-id"] == "from-the-client.1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["server"] == "ticketing"
    assert "strict-transport-security" not in answer.headers
    assert answer.headers["cache-control"] == (
        "public, max-age=60" if path == "/openapi.json" else "private, no-store"
    )
    if status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(answer.json()["traceId"]) == 32


async def test_request_id_is_made_when_none_or_a_strange_one_comes(client: httpx.AsyncClient) -> None:
    first = await client.get("/things")
    second = await client.get("/things", headers={"X-Request-Id": "a b\tc" + "d" * 200})
    ids = {first.headers["x-request-id"], second.headers["x-request-id"]}
    assert len(ids) == 2
    assert all(len(each) == 32 for each in ids)


async def test_https_is_insisted_on_where_it_is_spoken(client: httpx.AsyncClient) -> None:
    answer = await client.get("/things", headers={"X-Forwarded-Proto": "https"})
    assert "max-age=31536000" in answer.headers["strict-transport-security"]


async def test_host_that_is_not_ours_is_refused_on_every_port(client: httpx.AsyncClient) -> None:
    for host, status in (
        ("localhost", 200),
        ("LOCALHOST:3001", 200),
        ("tickets.example:443", 200),
        ("evil.example", 400),
        ("localhost.evil.example", 400),
        ("evil.example:localhost", 400),
        ("", 400),
    ):
        answer = await client.get("/things", headers={"Host": host})
        assert answer.status_code == status, host
        if status == 400:
            assert answer.json()["code"] == "unknown_host"


async def test_head_is_get_without_its_body(client: httpx.AsyncClient) -> None:
    for path in ("/things", "/things?limit=2", "/inventory/health", "/nowhere", "/inventory/docs"):
        head, get_ = await client.head(path), await client.get(path)
        assert head.content == b""
        assert head.status_code == get_.status_code
        for name in ("content-length", "content-type", "etag", "link", "cache-control"):
            assert head.headers.get(name) == get_.headers.get(name), (path, name)
    refused = await client.put("/things")
    assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert (await client.head("/busy")).status_code == 405


async def test_client_that_has_an_answer_gets_304(client: httpx.AsyncClient, tokens: Tokens) -> None:
    headers = tokens.issue()
    for path in ("/things", "/mine"):
        first = await client.get(path, headers=headers)
        tag = first.headers["etag"]
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            again = await client.get(path, headers={**headers, "If-None-Match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
            assert "content-length" not in again.headers
            assert again.headers["cache-control"] == first.headers["cache-control"]
        other = await client.get(path, headers={**headers, "If-None-Match": '"other"'})
        assert (other.status_code, other.json()) == (200, first.json())


async def test_change_of_what_has_changed_meanwhile_is_412(client: httpx.AsyncClient, tokens: Tokens) -> None:
    headers = tokens.issue()
    tag = (await client.get("/mine", headers=headers)).headers["etag"]
    body = {"id": 1, "name": "new"}
    refused = await client.patch("/mine", json=body, headers={**headers, "If-Match": '"old"'})
    assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
    weak = await client.patch("/mine", json=body, headers={**headers, "If-Match": f"W/{tag}"})
    assert weak.status_code == 412
    for matching in ({}, {"If-Match": tag}, {"If-Match": f'"old", {tag}'}, {"If-Match": "*"}):
        changed = await client.patch("/mine", json=body, headers={**headers, **matching})
        assert changed.status_code == 200
        assert changed.headers["etag"] != tag


async def test_next_page_is_linked(client: httpx.AsyncClient) -> None:
    page = await client.get("/things?limit=2")
    assert len(page.json()) == 2
    assert page.headers["link"] == '</things?limit=2&cursor=1>; rel="next"'
    assert "link" not in (await client.get("/things?limit=5")).headers


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=2&limit=2", 400),
        ("limit=2&limit=null", 400),
        ("limit=null", 400),
        ("cursor=null", 400),
        ("limit=0", 400),
        ("limit=1001", 400),
        ("limit=", 400),
        ("cursor=x", 400),
        ("limit=2&other=1&other=null", 200),
    ],
)
async def test_query_parameter_has_one_value_of_its_type(
    client: httpx.AsyncClient, query: str, status: int
) -> None:
    answer = await client.get(f"/things?{query}")
    assert answer.status_code == status
    if status == 400:
        [error] = answer.json()["errors"]
        assert error["pointer"] == f"query/{query.partition('=')[0]}"


async def test_options_name_every_method_of_the_path(client: httpx.AsyncClient) -> None:
    for path, methods in (("/things", "GET, HEAD, OPTIONS"), ("/mine", "GET, HEAD, OPTIONS, PATCH")):
        answer = await client.options(path)
        assert (answer.status_code, answer.headers["allow"]) == (204, methods)
        refused = await client.put(path)
        assert (refused.status_code, sorted(refused.headers["allow"].split(", "))) == (
            405,
            methods.split(", "),
        )


async def test_browsers_of_the_frontends_may_call_and_no_others(client: httpx.AsyncClient) -> None:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key,if-match",
    }
    ours = await client.options("/busy", headers={"Origin": "https://admin.example", **asked})
    assert ours.status_code == 204
    assert ours.headers["access-control-allow-origin"] == "https://admin.example"
    for origin in ("https://evil.example", "https://shop.example.evil.example", "null"):
        theirs = await client.options("/busy", headers={"Origin": origin, **asked})
        assert "access-control-allow-origin" not in theirs.headers
    for path in ("/things", "/mine", "/nowhere"):
        for headers in ({}, {"Origin": "https://evil.example"}, {"Origin": "https://shop.example"}):
            assert (await client.get(path, headers=headers)).headers["vary"] == "Origin"
    answer = await client.get("/nowhere", headers={"Origin": "https://shop.example"})
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    exposed = answer.headers["access-control-expose-headers"].lower()
    for name in ("etag", "link", "location", "retry-after", "x-request-id", "idempotent-replayed"):
        assert name in exposed


async def test_process_that_stops_is_not_ready_and_closes_its_connections(
    client: httpx.AsyncClient, app: Litestar
) -> None:
    assert "connection" not in (await client.get("/things")).headers
    assert (await client.get("/accepting")).status_code == 200
    app.state.edge.is_draining = True
    answer = await client.get("/things")
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    ready = await client.get("/inventory/ready")
    assert (ready.status_code, ready.json()["reason"]) == (503, "draining")
    assert ready.headers["retry-after"] == "1"
    assert (await client.get("/accepting")).status_code == 503


async def test_documentation_comes_from_here_alone(client: httpx.AsyncClient) -> None:
    for path in ("/docs", "/inventory/docs"):
        page = await client.get(path)
        assert page.headers["content-type"].startswith("text/html")
        assert "http" not in page.text.replace("https://", "http")
        assert "script-src 'self'" in page.headers["content-security-policy"]
        folder = path.rpartition("/")[0]
        for asset in ("docs/page.js", "docs/assets/swagger-ui-bundle.js", "docs/assets/swagger-ui.css"):
            assert asset in page.text
            assert (await client.get(f"{folder}/{asset}")).status_code == 200


async def test_documentation_is_kept_and_asked_for_again_with_its_tag(client: httpx.AsyncClient) -> None:
    for path in ("", ".json", "/page.js", "/assets/swagger-ui-bundle.js", "/assets/favicon-32x32.png"):
        first = await client.get("/openapi.json" if path == ".json" else f"/docs{path}")
        assert set(first.headers["cache-control"].split(", ")) == {"public", "max-age=60"}, path
        again = await client.get(first.url, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert "content-length" not in again.headers
