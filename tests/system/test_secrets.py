"""Every answer and every log of a whole sale, searched for what nobody, or nobody else, may see."""

import base64
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
import pytest
from embedded.stack import Stack

from tests.system.shop import ADMIN, Client, Shop, Stripe, eventually

CARD = "4242 4242 4242 4242"


@dataclass
class Heard:
    """One answer: to whom, to which request, and all that came, head and body."""

    who: str
    request: str
    text: str


@dataclass
class Recorder:
    """Keeps every answer that a client of the gateway gets."""

    heard: list[Heard] = field(default_factory=list[Heard])
    names: dict[str, str] = field(default_factory=dict[str, str])

    def keep(self, answer: httpx.Response) -> None:
        answer.read()
        token = answer.request.headers.get("authorization", "").removeprefix("Bearer ")
        head = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
        request = f"{answer.request.method} {answer.request.url.path}"
        self.heard.append(Heard(self.names.get(token, "nobody"), request, f"{head}\n{answer.text}"))

    def hearers(self, secret: str) -> set[tuple[str, str]]:
        """(who, request) of the answers with this text in them."""
        return {(each.who, each.request) for each in self.heard if secret in each.text}


@dataclass
class Person:
    name: str
    email: str
    password: str
    session: dict[str, Any]
    client: Client


@dataclass
class Run:
    recorder: Recorder
    ada: Person
    bob: Person
    order: dict[str, Any]
    used: dict[str, set[str]]
    """What was said to the system and is nobody else's business, by kind."""


def make_person(http: httpx.Client, recorder: Recorder, name: str) -> Person:
    email, password = f"{name}.{secrets.token_hex(6)}@example.com", secrets.token_urlsafe(12)
    body = {"email": email, "password": password, "name": name}
    session = Client(http).call("POST", "/auth/register", body, expect=201)
    recorder.names[session["token"]] = name
    return Person(name, email, password, session, Client(http, session))


@pytest.fixture(scope="module")
def run(shop: Shop) -> Iterator[Run]:
    """Ada buys, Bob looks on, the admin sells and refunds, and everybody makes mistakes."""
    recorder = Recorder()
    hooks = {"response": [recorder.keep]}
    base_url = shop.gateway.base_url
    with httpx.Client(base_url=base_url, timeout=20, trust_env=False, event_hooks=hooks) as http:
        anyone = Client(http)
        admin_session = anyone.call("POST", "/auth/login", ADMIN)
        recorder.names[admin_session["token"]] = "admin"
        loud = Shop.__new__(Shop)
        loud.environment, loud.gateway = shop.environment, http
        loud.stripe, loud.admin = Stripe(shop.stripe.http), Client(http, admin_session)
        ada, bob = make_person(http, recorder, "ada"), make_person(http, recorder, "bob")
        event = loud.event()
        free = loud.event(amount_minor=0)

        order = ada.client.check_out(ada.client.hold(event, loud.seats(event)[:1]))
        ada.client.check_out({"id": order["reservationId"]})
        loud.stripe.pay(order)
        ada.client.order_becomes(order, "fulfilled")
        [ticket] = eventually(lambda: ada.client.tickets(order), until=lambda seen: len(seen) == 1)
        other = ada.client.check_out(ada.client.hold(event, loud.seats(event)[:1]))
        declined = loud.stripe.confirm(other, "pm_card_visa_chargeDeclined")
        assert declined.status_code == 402
        ada.client.call("POST", f"/orders/{other['orderId']}/cancel")
        gift = bob.client.check_out(bob.client.hold(free, loud.seats(free)[:1]))
        [used] = eventually(lambda: bob.client.tickets(gift), until=lambda seen: len(seen) == 1)
        for _ in range(2):
            loud.admin.request("POST", "/tickets/check-in", {"qrPayload": used["qrPayload"]})
        loud.admin.call("POST", f"/orders/{order['orderId']}/refund")
        ada.client.order_becomes(order, "refunded")

        for person in (ada, bob, Person("admin", "", "", {}, loud.admin)):
            for path in (
                *("/auth/me", "/organizers", "/venues", "/events", f"/events/{event['id']}"),
                *(f"/events/{event['id']}/seats", "/reservations", "/orders", "/tickets"),
                *(f"/reservations/{order['reservationId']}", f"/orders/{order['orderId']}"),
                *(f"/tickets/{ticket['id']}", f"/tickets/{ticket['id']}/qr.svg"),
                *("/.well-known/jwks.json", "/.well-known/ticket-keys.json", "/health", "/nothing-here"),
                *("/auth/ready", "/catalog/ready", "/inventory/ready", "/payments/ready"),
                *("/auth/openapi.json", "/inventory/openapi.json", "/payments/openapi.json"),
            ):
                person.client.request("GET", path)
            person.client.request("POST", f"/orders/{order['orderId']}/cancel")
            person.client.request("DELETE", f"/reservations/{order['reservationId']}")

        # Mistakes, with secrets in them.
        for body in (
            {"email": ada.email, "password": "wrong"},
            {"email": ada.email, "password": [ada.password]},
            {"email": [ada.email], "password": ada.password},
            {"email": ada.email + "\x00", "password": ada.password},
        ):
            anyone.request("POST", "/auth/login", body)
        taken = {"email": ada.email, "password": bob.password, "name": "x"}
        anyone.request("POST", "/auth/register", taken)
        for token in (ada.session["refreshToken"], ada.session["token"], ada.password):
            anyone.request("POST", "/auth/refresh", {"refreshToken": [token]})
        http.post("/auth/login", content=f'{{"email": "{ada.email}", "password": "{ada.password}"')
        http.post("/orders/webhook", content=b"{}", headers={"Stripe-Signature": "t=1,v1=0"})
        http.post("/orders/webhook", content=CARD.encode(), headers={"Stripe-Signature": ada.email})
        for body in (
            {"reservationId": CARD},
            {"reservationId": ticket["id"], "email": f"{CARD} {ada.email}"},
        ):
            ada.client.request("POST", "/orders/checkout", body)
        loud.admin.request("POST", "/tickets/check-in", {"qrPayload": used["qrPayload"] + "x"})
        loud.admin.request("POST", "/tickets/check-in", {"qrPayload": [used["qrPayload"]]})
        loud.admin.request("POST", "/organizers", {"email": ada.email, "name": ada.password, "slug": CARD})
        for path in (f"/events/{CARD}", f"/events?cursor={ada.email}", f"/auth/me?token={ada.password}"):
            http.get(path, headers={"Authorization": f"Bearer {ada.session['token']}x"})
        bob.client.request("POST", "/auth/password", {"currentPassword": ada.password, "newPassword": "x"})
        sessions = [ada.session, bob.session, admin_session]
        for person in (ada, bob):
            login = {"email": person.email, "password": person.password}
            fresh = anyone.call("POST", "/auth/login", login)
            renewed = anyone.call("POST", "/auth/refresh", {"refreshToken": fresh["refreshToken"]})
            anyone.call("POST", "/auth/logout", {"refreshToken": renewed["refreshToken"]}, expect=204)
            sessions += [fresh, renewed]
        loud.admin.call("PATCH", f"/auth/users/{ada.client.id}", {"role": "user"})
        sold = (order, other, gift)
        used_up = {
            "password": {ada.password, bob.password, ADMIN["password"]},
            "e-mail address": {ada.email, bob.email},
            "access token": {each["token"] for each in sessions},
            "refresh token": {each["refreshToken"] for each in sessions},
            "ticket code": {ticket["qrPayload"], used["qrPayload"]},
            "client secret": {each["clientSecret"] for each in sold if each["clientSecret"]},
            "card": {CARD, CARD.replace(" ", "")},
        }
        yield Run(recorder, ada, bob, order, used_up)


def spellings(secret: bytes) -> set[str]:
    url_safe = base64.urlsafe_b64encode(secret).decode()
    return {secret.hex(), url_safe.rstrip("="), base64.b64encode(secret).decode().rstrip("=")}


def stored_secrets(environment: dict[str, str]) -> dict[str, set[str]]:
    """What the databases and the settings keep for themselves, by kind, as it could be written."""
    with psycopg.connect(environment["ADMIN_DATABASE_URL"]) as conn:

        def column(statement: Any) -> list[Any]:
            return [row[0] for row in conn.execute(statement)]

        pem_lines = "\n".join(column("SELECT private_pem FROM auth.signing_keys")).splitlines()
        digests = column("SELECT digest FROM auth.refresh_tokens")
        seeds = column("SELECT seed FROM inventory.ticket_keys")
        answers = column("SELECT digest FROM inventory.idempotency_keys")
        return {
            "hash of a password": set(column("SELECT password_phc FROM auth.users")),
            "hash of a refresh token": {text for each in digests for text in spellings(each)},
            "private half of a key of logins": {line for line in pem_lines if line and "-----" not in line},
            "private half of a key of tickets": {text for each in seeds for text in spellings(each)},
            "digest of a request": {text for each in answers for text in spellings(each)},
            "password of a role": {
                conn_info.split("@")[0].rsplit(":", 1)[1]
                for name, conn_info in environment.items()
                if name.endswith("DATABASE_URL")
            },
            "key of Stripe": {environment["STRIPE_SECRET_KEY"], environment["STRIPE_WEBHOOK_SECRET"]},
        }


def test_no_answer_of_a_whole_sale_has_a_secret_or_somebody_elses_data(shop: Shop, run: Run) -> None:
    heard = run.recorder.hearers
    assert len(run.recorder.heard) > 100
    stored = stored_secrets(shop.environment)
    assert {kind for kind, texts in stored.items() if not texts} <= {"digest of a request"}
    for kind, texts in stored.items():
        for text in texts:
            assert len(text) > 10, kind
            assert not heard(text), kind
    for person in (run.ada, run.bob):
        assert not heard(person.password)
        # Sessions are told to who logs in, and to nobody again.
        for token in (person.session["token"], person.session["refreshToken"]):
            assert {request for _, request in heard(token)} == {"POST /auth/register"}
    logins = {"POST /auth/register", "POST /auth/login", "POST /auth/refresh"}
    for who, request in heard(run.ada.email):
        assert who in ("ada", "admin") or (who == "nobody" and request in logins), (who, request)
    assert heard(run.order["clientSecret"]) == {("ada", "POST /orders/checkout")}


def test_no_log_of_a_whole_sale_has_a_secret_or_an_address(shop: Shop, stack: Stack, run: Run) -> None:
    logs = {path.name: path.read_text(errors="replace") for path in stack.settings.logs.glob("*.log*")}
    for process in stack.programs:
        assert f"{process}.log" in logs
    # The requests were logged, and the stored secrets are looked for as well.
    assert re.search(r"trace=[0-9a-f]{32}", logs["auth.log"])
    found = [
        (kind, name)
        for kind, texts in {**run.used, **stored_secrets(shop.environment)}.items()
        for text in texts
        for name, log in logs.items()
        if text in log
    ]
    assert found == []


def test_no_answer_tells_of_the_inside(run: Run) -> None:
    words = ("Traceback", "psycopg", "litestar", "msgspec", "aiokafka", "granian", "SELECT ", "site-packages")
    for each in run.recorder.heard:
        if not each.request.endswith("openapi.json"):
            assert not [word for word in words if word in each.text], (each.request, each.text[:500])
