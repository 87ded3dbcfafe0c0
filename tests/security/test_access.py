"""Who may call what: every route of every service has a rule, and the rule holds."""

import re
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from libs.ids import new_id
from libs.testing import Tokens
from libs.web.application import access_rules, route_handlers
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler

SERVICES = ("auth", "catalog", "inventory", "payments")
NOT_FOR_CLIENTS = ("/accepting", "/unavailable")
"""The gateway asks for its own errors there."""

# Whom a rule refuses, and how. Who is not refused may still be told that the request makes no sense.
REFUSALS: dict[str, dict[str, int]] = {
    "anyone": {},
    "stripe_signature": {"nobody": 401, "user": 401, "scanner": 401, "admin": 401},
    "authenticated": {"nobody": 401},
    "buyer": {"nobody": 401, "scanner": 403},
    "scanner": {"nobody": 401, "user": 403},
    "admin": {"nobody": 401, "user": 403, "scanner": 403},
}


# The words of docs/api.md.
RULES = {
    "anyone": "anyone",
    "Stripe, by signature": "stripe_signature",
    "token": "authenticated",
    "user, admin": "buyer",
    "owner": "buyer",
    "owner, admin": "buyer",
    "owner of the reservation": "buyer",
    "scanner, admin": "scanner",
    "admin": "admin",
}
PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def documented_rules() -> dict[str, str]:
    """`METHOD /path` to the rule that docs/api.md tells; `{}` stands for every parameter."""
    rules: dict[str, str] = {}
    for calls, who in re.findall(r"^\| (`[A-Z]+ /.*?) \| ([^|]+?) \|", PAGE.read_text(), re.MULTILINE):
        for call in re.findall(r"`([A-Z]+ /[^` ]*)`", calls):
            services = SERVICES if "{service}" in call else ("",)
            for service in services:
                rules[re.sub(r"\{[^}]+\}", "{}", call.replace("{service}", service))] = RULES[who]
    return rules


def routes_of(apps: Mapping[str, Litestar]) -> list[tuple[str, str, str, str]]:
    """(service, method, path, rule) of every route."""
    found: list[tuple[str, str, str, str]] = []
    for service, app in apps.items():
        for path, handler in route_handlers(app):
            assert isinstance(handler, HTTPRouteHandler)
            [rule] = access_rules(handler)
            found += [(service, method, path, rule) for method in sorted(handler.http_methods)]
    return found


def test_every_route_of_every_service_names_one_rule(apps: Mapping[str, Litestar]) -> None:
    routes = routes_of(apps)
    assert {service for service, *_ in routes} == set(apps)
    assert len(routes) > 50, "the walk has lost most of the routes"
    writes = {(method, path) for _, method, path, rule in routes if rule == "anyone" and method != "GET"}
    assert {path for method, path in writes if method != "HEAD"} == {
        "/auth/register",
        "/auth/login",
        "/auth/refresh",
        "/auth/logout",
    }, "nobody else may change something without a token"


def test_rules_are_those_that_the_api_page_tells(apps: Mapping[str, Litestar]) -> None:
    documented = documented_rules()
    told = {
        f"{method} {re.sub(r'{[^}]+}', '{}', path)}": rule
        for _, method, path, rule in routes_of(apps)
        if method != "HEAD" and path not in NOT_FOR_CLIENTS and "/docs/" not in path
    }
    assert told == {call: documented.get(call, "not on the page") for call in told}


async def test_every_route_refuses_whom_its_rule_refuses_and_nobody_else(
    apps: Mapping[str, Litestar],
    clients: Mapping[str, httpx.AsyncClient],
    people: Mapping[str, Mapping[str, str]],
) -> None:
    wrong: list[str] = []
    for service, method, path, rule in routes_of(apps):
        if "{file_path:path}" in path:
            continue  # the documentation's pictures
        url = re.sub(r"\{[^}]+\}", str(new_id()), path)
        for who, headers in people.items():
            answer = await clients[service].request(
                method, url, headers=headers, json=None if method == "GET" else {}
            )
            expected = REFUSALS[rule].get(who)
            is_right = answer.status_code == expected if expected else answer.status_code not in (401, 403)
            if not is_right:
                wrong.append(
                    f"{method} {path} ({rule}) answered {who} {answer.status_code}: {answer.text[:200]}"
                )
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("role", ["", "root", "ADMIN", "user,admin"])
async def test_role_that_there_is_not_may_nothing(
    clients: Mapping[str, httpx.AsyncClient], tokens: Tokens, role: str
) -> None:
    headers = tokens.issue(role=role)
    for service, method, path in (
        ("catalog", "POST", "/venues"),
        ("inventory", "POST", "/tickets/check-in"),
        ("inventory", "GET", "/tickets"),
        ("payments", "GET", "/orders"),
    ):
        answer = await clients[service].request(method, path, headers=headers)
        assert answer.status_code == 403, (path, answer.text)
