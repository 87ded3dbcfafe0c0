"""What must not be read in a log line is not in it, and the rest is."""

import logging

import pytest
from libs.logs import configure_logging
from libs.scrubbing import scrub

TOKEN = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl-_x"


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        (f"token {TOKEN} refused", TOKEN),
        (f"refused {TOKEN.rpartition('.')[0]}", "eyJzdWIiOiIxIn0"),
        ("Authorization: Bearer abc.DEF-1+/=", "abc.DEF"),
        ("authorization: basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("key sk_test_4eC39HqLyjWDarjtT1zdp7dc", "4eC39HqLyjWDarjtT1zdp7dc"),
        ("rk_live_abc and whsec_a+b/c=", "whsec_a"),
        ("pi_3Nx_secret_Vt9dQq confirmed", "Vt9dQq"),
        ("connecting to postgresql://app:s3cr3t-p4ss@db/x", "s3cr3t-p4ss"),
        ("redis://:s3cr3t@redis:6379/0", "s3cr3t"),
        ('{"password": "correct horse", "x": 1}', "correct horse"),
        ("{'newPassword': 'correct horse'}", "correct horse"),
        ("password=hunter22 for ada", "hunter22"),
        ('{"refreshToken":"q1w2e3"}', "q1w2e3"),
        ("refresh_token = q1w2e3", "q1w2e3"),
        ('"qrPayload": "1.ab.cd.ef"', "1.ab.cd.ef"),
        ("client_secret: x9y8z7", "x9y8z7"),
        ("ERROR: duplicate\nDETAIL:  Key (email)=(ada) already exists.\nHINT: none", "ada"),
        ("mail to ada.lovelace+x@shop.example.com now", "ada.lovelace"),
        ("card 4242424242424242 declined", "4242424242424242"),
        ("card 4242 4242 4242 4242 declined", "4242"),
        ("card 3782-822463-10005", "822463"),
    ],
)
def test_secret_is_taken_out(line: str, secret: str) -> None:
    assert secret in line
    assert secret not in scrub(line)
    assert "[" in scrub(line)


@pytest.mark.parametrize(
    "line",
    [
        "order 01a205d7-84ca-753a-b533-60179c27a1dd waits",
        "trace=4bf92f3577b34da6a3ce929d0e0e4736 request=7c05360b05eb5e7e004e508d15eaa545 GET /events 200",
        "payment_intent pi_3NxyAbC succeeded, 4500 eur",
        "connecting to postgresql://app@db:5432/ticketing",
        "2026-11-23 01:02:03,456 INFO partition 3 at offset 123456789012",
        "users at 10.0.0.1, 3 @ once",
    ],
)
def test_what_helps_is_left(line: str) -> None:
    assert scrub(line) == line


def test_stack_trace_is_scrubbed_too(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logging("debug")
        try:
            raise ValueError(f"no such user: ada@shop.example.com with {TOKEN}")  # noqa: TRY301
        except ValueError:
            logging.getLogger("shop").exception("login of %s failed", "bob@shop.example.com")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "login of [e-mail] failed" in told
    assert "ValueError: no such user: [e-mail] with [token]" in told
