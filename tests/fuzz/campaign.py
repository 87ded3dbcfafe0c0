"""Made-up requests after the OpenAPI documents of a running stack, and what the checks say of the answers."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from embedded.settings import SERVICES
from schemathesis.config import SchemathesisConfig
from schemathesis.config._auth import AuthConfig
from schemathesis.core.transport import Response
from schemathesis.engine import events, from_schema

from tests.system.shop import ADMIN, Client, Shop

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
CALLERS = ("nobody", "buyer", "admin")
WHOLE = "whole"
"""In place of a service: the merged document, whose links lead from one service to the next."""
EACH_ALONE = ("examples", "coverage", "fuzzing")

# By settings, so that what is tried out is the application and not its limits.
ENVIRONMENT = {
    "ACCESS_TOKEN_SECONDS": "3000",
    "RATE_LIMIT_MAX": "1000000",
    "AUTH_RATE_LIMIT_MAX": "1000000",
    "LOGIN_FAILURES_MAX": "1000000",
    "HOLD_RATE_LIMIT_MAX": "1000000",
    "MAX_HELD_SEATS": "100000",
}


@schemathesis.check
def waits_are_told(_: Any, response: Response, __: Any) -> None:
    """Whoever is to come back later is told when."""
    if response.status_code in (429, 503):
        assert int(response.headers.get("retry-after", ["0"])[0]) > 0, "no Retry-After"


@dataclass(frozen=True)
class Part:
    """Requests after one document by one caller."""

    service: str
    caller: str
    phases: tuple[str, ...]
    examples: int
    """For each operation, and as many walks along the links."""

    def __str__(self) -> str:
        return f"{self.service} as {self.caller}"


@dataclass(frozen=True)
class Failure:
    service: str
    operation: str
    caller: str
    check: str
    text: str
    """How to repeat it, and what came."""


@dataclass
class Tally:
    cases: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """By service and caller."""
    answers: Counter[tuple[str, str, int]] = field(default_factory=Counter[tuple[str, str, int]])
    """By service, operation and status."""
    failures: dict[tuple[str, str, str], Failure] = field(default_factory=dict[tuple[str, str, str], Failure])
    """One of each kind."""
    errors: list[str] = field(default_factory=list[str])
    """What kept the tool from its work."""

    @property
    def is_clean(self) -> bool:
        return not self.failures and not self.errors


class Campaign:
    """Against a stack that is used for nothing else: it cancels, disables and buys what it finds."""

    def __init__(self, shop: Shop, *, seed: int, workers: int = 2) -> None:
        self._shop = shop
        self._seed = seed
        self._workers = workers
        self.tally = Tally()

    def run(self, parts: Iterable[Part]) -> Iterator[Part]:
        """Each part when it is done."""
        for part in parts:
            self._prepare()
            for event in from_schema(self._schema(part)).execute():
                if isinstance(event, events.ScenarioFinished):
                    self._count(event, part)
                elif isinstance(event, events.NonFatalError | events.FatalError):
                    self.tally.errors.append(f"{part}: {event}")
            yield part

    def _prepare(self) -> None:
        """Something on sale: what was is cancelled and sold out by now. It may be long ago."""
        self._shop.admin = Client(
            self._shop.gateway, Client(self._shop.gateway).call("POST", "/auth/login", ADMIN)
        )
        self._shop.event(seats=50)
        self._shop.event(amount_minor=0, seats=50)

    def _schema(self, part: Part) -> Any:
        config = SchemathesisConfig.from_path(str(CONFIGURATION))
        config.update(seed=self._seed, max_failures=None)
        project = config.projects.default
        project.workers = self._workers
        project.continue_on_failure = True
        # By `update`: what is only set gives way to what the file does not say.
        project.generation.update(max_examples=part.examples)
        project.phases.update(phases=list(part.phases))
        if part.caller != "nobody":
            project.auth = AuthConfig.from_dict(self._credentials(part.caller))
        path = "/openapi.json" if part.service == WHOLE else f"/{part.service}/openapi.json"
        return schemathesis.openapi.from_url(f"{self._url}{path}", config=config)

    def _credentials(self, caller: str) -> dict[str, Any]:
        """Somebody new: an admin may well take the role from itself on the way."""
        person: Client = self._shop.buyer()
        if caller == "admin":
            self._shop.admin.call("PATCH", f"/auth/users/{person.id}", {"role": "admin"})
        login = {
            "path": "/auth/login",
            "payload": {"email": person.email, "password": person.password},
            "extract_selector": "/token",
        }
        return {"auto-signup": False, "dynamic": {"openapi": {"token": login}}}

    @property
    def _url(self) -> str:
        return self._shop.environment["GATEWAY_URL"]

    @cached_property
    def _service_of(self) -> dict[str, str]:
        """Operations like `GET /events`, of the services' own documents."""
        return {
            f"{method.upper()} {path}": service
            for service in SERVICES
            for path, item in httpx.get(f"{self._url}/{service}/openapi.json").json()["paths"].items()
            for method in item
        }

    def _count(self, event: events.ScenarioFinished, part: Part) -> None:
        recorder = event.recorder
        for case_id, interaction in recorder.interactions.items():
            operation = recorder.cases[case_id].value.operation.label
            service = self._service_of[operation]
            self.tally.cases[service, part.caller] += 1
            if interaction.response is not None:
                self.tally.answers[service, operation, interaction.response.status_code] += 1
        for case_id, checks in recorder.checks.items():
            operation = recorder.cases[case_id].value.operation.label
            for check in checks:
                if check.failure_info is not None:
                    told = check.failure_info.failure
                    answer = recorder.interactions[case_id].response
                    text = f"{told.title}: {told.message}\n{check.failure_info.code_sample}\n{_shown(answer)}"
                    kind = (operation, check.name, told.title)
                    failure = Failure(self._service_of[operation], operation, part.caller, check.name, text)
                    self.tally.failures.setdefault(kind, failure)


def _shown(answer: Response | None) -> str:
    return f"{answer.status_code} {answer.text[:500]}" if answer else "no answer"
