"""A client written for the original API gets through its whole order of calls."""

import json
import re
import secrets
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest
import stripe

from tests.system.shop import ADMIN, Shop


@pytest.fixture
def api(shop: Shop) -> httpx.Client:
    return shop.gateway


def test_originals_order_of_calls_from_register_to_webhook(api: httpx.Client, shop: Shop) -> None:
    email = f"{secrets.token_hex(6)}@example.com"
    registered = api.post("/auth/register", json={"email": email, "password": "password1", "name": "N"})
    assert registered.status_code == 201
    assert {"id", "email", "name", "role"} == set(registered.json()["user"])
    login = api.post("/auth/login", json={"email": email, "password": "password1"})
    assert login.status_code == 200
    user_id = UUID(login.json()["user"]["id"])
    headers = {"Authorization": f"Bearer {login.json()['token']}"}
    wrong = api.post("/auth/login", json={"email": email, "password": "password2"})
    assert (wrong.status_code, wrong.json()["message"]) == (401, "Invalid email or password")
    admin_login = api.post("/auth/login", json=ADMIN)
    admin = {"Authorization": f"Bearer {admin_login.json()['token']}"}

    venue = {"name": "V", "address": "a", "city": "c", "state": "s", "zip": "z", "country": "DE"}
    made = api.post("/venues", json=venue, headers=admin)
    assert made.status_code == 201
    assert set(made.json()) >= {"id", "organizerId", "description", "createdAt", "updatedAt", *venue}
    seats = {"seats": [{"section": "A", "row": "1", "seatNumber": n} for n in (1, 2, 3)]}
    added = api.post(f"/venues/{made.json()['id']}/seats", json=seats, headers=admin)
    assert (added.status_code, added.json()) == (201, {"count": 3})

    day = datetime.now(UTC) - timedelta(days=300)
    event = {
        "name": "E",
        "venueId": made.json()["id"],
        "organizerId": None,
        "description": "d",
        "imageUrl": "https://example.com/x.png",
        "startDate": day.isoformat(),
        "endDate": (day + timedelta(hours=1)).isoformat(),
        "isPublished": True,
    }
    refused = api.post("/events", json=event, headers=headers)
    assert refused.status_code == 403
    assert "Admin" in refused.json()["message"]
    created = api.post("/events", json=event, headers=admin)
    assert created.status_code == 201
    event_id = created.json()["id"]
    assert (created.json()["status"], created.json()["isPublished"]) == ("published", True)

    # From the moment that the 201 was answered.
    found = api.get(f"/events/{event_id}/seats")
    assert found.status_code == 200
    assert {"id", "section", "row", "seatNumber", "status"} <= set(found.json()[0])
    assert api.get(f"/events/{event_id}").json()["id"] == event_id
    assert event_id in [each["id"] for each in api.get("/events").json()]

    seat_ids = [each["id"] for each in found.json()[:2]]
    reserved = api.post("/reservations", json={"eventId": event_id, "seatIds": seat_ids}, headers=headers)
    assert reserved.status_code == 200
    assert {each["status"] for each in reserved.json()["seats"]} == {"reserved"}
    again = api.post("/reservations", json={"eventId": event_id, "seatIds": seat_ids}, headers=admin)
    assert again.status_code == 409
    for bad in ([], ["x"]):
        answer = api.post("/reservations", json={"eventId": event_id, "seatIds": bad}, headers=headers)
        assert answer.status_code == 400

    checkout = {
        "userId": str(user_id),
        "eventId": event_id,
        "seatIds": seat_ids,
        "tierId": "any",
        "email": email,
    }
    ordered = api.post("/orders/checkout", json=checkout, headers=headers)
    assert ordered.status_code == 200, ordered.text
    assert {"orderId", "clientSecret"} <= set(ordered.json())
    unknown = api.post("/orders/checkout", json={**checkout, "seatIds": [str(UUID(int=1))]}, headers=headers)
    assert unknown.status_code == 404

    payload = json.dumps(
        {
            "id": f"evt_{secrets.token_hex(8)}",
            "object": "event",
            "type": "payment_intent.created",
            "data": {"object": {"id": "pi_x", "object": "payment_intent", "metadata": {}}},
        }
    )
    secret = shop.environment["STRIPE_WEBHOOK_SECRET"]
    now = int(time.time())
    signature = stripe.WebhookSignature._compute_signature(f"{now}.{payload}", secret)  # pyright: ignore[reportPrivateUsage]
    for mark, expected in ((signature, 200), ("0" * 64, 401)):
        answer = api.post(
            "/orders/webhook", content=payload, headers={"stripe-signature": f"t={now},v1={mark}"}
        )
        assert answer.status_code == expected
    assert api.get("/health").status_code == 200


@pytest.mark.parametrize("service", ["auth", "catalog", "inventory", "payments"])
def test_every_service_tells_its_health_and_documents_itself(api: httpx.Client, service: str) -> None:
    assert api.get(f"/{service}/health").json() == {"status": "ok"}
    assert api.get(f"/{service}/ready").json() == {"status": "ok"}
    document = api.get(f"/{service}/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    page = api.get(f"/{service}/docs")
    assert page.status_code == 200
    assert not re.findall(r"""(?:src|href)=['"]https?:""", page.text)
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert api.get(f"/{service}/docs/assets/{asset}").status_code == 200


@pytest.mark.parametrize(
    "path", ["/nothing", "/events/a/b/c", "/%00", "/orders/%2F..%2Fauth", "/auth/nothing"]
)
def test_path_that_nobody_owns_gets_a_problem_document(api: httpx.Client, path: str) -> None:
    answer = api.get(path)
    assert answer.status_code in (400, 401, 404, 405)
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json()["message"] == answer.json()["detail"]
