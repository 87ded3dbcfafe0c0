"""The health checks of containers: what they call well, and what not."""

import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from libs.probe import WORKER_SILENCE_SECONDS, app_trouble, worker_trouble


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/auth/ready" else 503)
        self.end_headers()
        self.wfile.write(b"draining")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_app_is_well_when_it_answers_200(address: str) -> None:
    assert app_trouble(f"{address}/auth/ready") is None


def test_app_that_answers_503_says_why(address: str) -> None:
    assert app_trouble(f"{address}/catalog/ready") == "answers 503: draining"


def test_app_that_is_not_there_is_not_well() -> None:
    trouble = app_trouble("http://127.0.0.1:1/auth/ready")
    assert trouble is not None
    assert trouble.startswith("does not answer")


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        (None, "has not said yet that it is ready"),
        ("", "has not said yet that it is ready"),
        ('{"status": "ready", "detail": ""}', None),
        ('{"status": "waiting", "detail": "relay: no database"}', "waiting: relay: no database"),
    ],
)
def test_worker_is_as_well_as_its_file_says(tmp_path: Path, text: str | None, trouble: str | None) -> None:
    file = tmp_path / "worker.json"
    if text is not None:
        file.write_text(text)
    assert worker_trouble(file) == trouble


def test_worker_that_says_nothing_more_is_not_well(tmp_path: Path) -> None:
    file = tmp_path / "worker.json"
    file.write_text('{"status": "ready", "detail": ""}')
    old = time.time() - WORKER_SILENCE_SECONDS - 5
    os.utime(file, (old, old))
    assert (worker_trouble(file) or "").startswith("has said nothing for 2")
