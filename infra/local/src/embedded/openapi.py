"""`python -m embedded.openapi`: the merged OpenAPI document and the page of error codes, from the code.

`--check` writes nothing and fails when what is committed differs.
"""

import argparse
import copy
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from embedded.settings import ROOT, SERVICES

DOCUMENT = ROOT / "contracts" / "src" / "contracts" / "openapi.json"
ERRORS = ROOT / "docs" / "errors.md"
TITLE = "Ticketing"

# The applications are made, never started: nothing of this is ever spoken to.
_SETTINGS = {f"{service.upper()}_DATABASE_URL": "postgresql://none/none" for service in SERVICES} | {
    "STRIPE_SECRET_KEY": "sk_test_" + "0" * 24,
    "STRIPE_WEBHOOK_SECRET": "whsec_" + "0" * 32,
}
_HEAD = """\
# Error codes

Every error is a problem document (RFC 9457, `application/problem+json`): `{type, title, status, code, detail,
message, traceId}`. A `code` keeps its meaning; `detail` is for people and may change; `message` is `detail`
once more, for clients of the original API. `traceId` names the request in our logs.

This page is written by `make openapi`, from the code.

| code | status | cause | what to do |
|---|---|---|---|
"""
_TAIL = """
The gateway answers by itself only what is no HTTP that it can pass on, in plain text and before any service
sees it: 400 for a malformed request and 431 for more than 32 KiB of headers. More than some 90 headers are
431 without a body. A path that nobody owns is 404 `not_found`. For a service that it does not reach it waits
some 7 s, as long as a restart takes; then it says 503 `temporarily_unavailable`, as the service would, with
`Retry-After`. When no service at all is up, this is 503 `Bad Gateway` in plain text, without `Retry-After`;
and in the gateway's own first moments it is 404 in plain text.

[curl.md](curl.md) shows each code with a command.
"""


def set_environment(set_variable: Callable[[str, str], object]) -> None:
    for name, value in _SETTINGS.items():
        set_variable(name, value)


def merged_document() -> dict[str, Any]:
    documents: list[dict[str, Any]] = []
    for service in SERVICES:
        app = importlib.import_module(f"{service}.app").create_app()
        documents.append(app.state.build_document())
    return merge_documents(documents)


def merge_documents(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One document of all services. Raises `ValueError` when one name means two things."""
    from libs.web.openapi import without_dangling_links  # noqa: PLC0415

    merged = copy.deepcopy(documents[0]) | {"paths": {}}
    merged["info"]["title"] = TITLE
    seen: dict[str, str] = {}
    for document in documents:
        for path, item in document["paths"].items():
            for operation in item.values():
                if seen.setdefault(operation["operationId"], path) != path:
                    raise ValueError(f"two operations are called {operation['operationId']}")
            merged["paths"].setdefault(path, {}).update(item)
        for part in ("schemas", "responses"):
            for name, meaning in document["components"][part].items():
                if merged["components"][part].setdefault(name, meaning) != meaning:
                    raise ValueError(f"two services mean different things by {part}/{name}")
    merged["paths"] = dict(sorted(merged["paths"].items()))
    for part in ("schemas", "responses"):
        merged["components"][part] = dict(sorted(merged["components"][part].items()))
    return without_dangling_links(merged)


def error_page() -> str:
    from libs.web.examples import cause_of  # noqa: PLC0415
    from libs.web.problems import Problem  # noqa: PLC0415

    def kinds(kind: type[Problem]) -> list[type[Problem]]:
        return [each for sub in kind.__subclasses__() for each in (sub, *kinds(sub))]

    rows: dict[tuple[str, int], list[type[Problem]]] = {}
    for kind in kinds(Problem):
        if kind.__module__.split(".")[0] in ("libs", *SERVICES) and ".tests." not in kind.__module__:
            rows.setdefault((kind.code, kind.status), []).append(kind)
    lines: list[str] = []
    for (code, status), same in sorted(rows.items(), key=lambda row: (row[0][1], row[0][0])):
        causes = " ".join(dict.fromkeys(cause_of(kind) for kind in same))
        cures = " ".join(dict.fromkeys(kind.cure for kind in same))
        lines.append(f"| `{code}` | {status} | {causes} | {cures} |\n")
    return _HEAD + "".join(lines) + _TAIL


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m embedded.openapi", description=__doc__)
    parser.add_argument("--check", action="store_true")
    is_check = parser.parse_args().check
    set_environment(os.environ.__setitem__)
    written = {DOCUMENT: json.dumps(merged_document(), indent=1) + "\n", ERRORS: error_page()}
    stale = [path for path, text in written.items() if not path.exists() or path.read_text() != text]
    if is_check:
        if stale:
            names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
            sys.exit(f"not what the code says: {names}. Run `make openapi`.")
        return
    for path in stale:
        Path(path).write_text(written[path])


if __name__ == "__main__":
    main()
