"""Rules and dashboards speak of metrics that there are; docs/telemetry.md tells of each; promtool agrees."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from embedded.settings import SERVICES
from inventory.measures import MEASURES
from libs.telemetry.metrics import METRICS, prometheus_names

ROOT = Path(__file__).parents[2]
MONITOR = ROOT / "monitor"
RULES = MONITOR / "rules" / "ticketing.yml"
PROMTOOL = shlex.split(os.environ.get("PROMTOOL", "promtool"))

DECLARED = (*METRICS, *MEASURES)
# Of Jaeger's spanmetrics connector, and of Prometheus itself.
OTHERS = {"traces_span_metrics_calls_total", "traces_span_metrics_duration_milliseconds_bucket", "up"}
NAMES = {name for metric in DECLARED for name in prometheus_names(metric)} | OTHERS
LABELS = {
    *(label.replace(".", "_") for metric in DECLARED for label in metric.labels),
    *("service_name", "span_name", "span_kind", "le", "job"),
}
WORDS = {
    "absent",
    "and",
    "by",
    "count",
    "histogram_quantile",
    "max",
    "min",
    "on",
    "or",
    "rate",
    "sum",
    "topk",
}
WORDS.add("unless")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> Iterator[tuple[str, str]]:
    """(where it stands, PromQL)."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for path in sorted((MONITOR / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{path.name}: {panel['title']}", target["expr"]


QUERIES = list(queries())


def words_of(query: str) -> tuple[set[str], set[str]]:
    """The metrics and the labels that a query names."""
    query = re.sub(r'"[^"]*"', '""', query)
    inside = [*re.findall(r"\{([^}]*)\}", query), *re.findall(r"\b(?:by|on) \(([^)]*)\)", query)]
    labels = {word for part in inside for word in re.findall(r"[a-z_]+", part)}
    outside = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(?:by|on) \([^)]*\)", " ", query)
    return set(re.findall(r"[a-z_]{2,}", outside)) - WORDS, labels


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_query_names_metrics_and_labels_that_there_are(where: str, query: str) -> None:
    metrics, labels = words_of(query)
    assert metrics
    assert metrics <= NAMES, where
    assert labels <= LABELS, where


def test_every_metric_is_looked_at() -> None:
    seen = {name for _, query in QUERIES for name in words_of(query)[0]}
    unseen = [metric.name for metric in DECLARED if not seen & set(prometheus_names(metric))]
    assert unseen == []


def test_every_rule_has_a_page_and_a_test() -> None:
    tested = yaml.safe_load((RULES.parent / "tests" / "ticketing.yml").read_text())["tests"]
    fired = {each["alertname"] for test in tested for each in test["alert_rule_test"] if each["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules()}
    for rule in rules():
        page = ROOT / rule["annotations"]["runbook"]
        assert page.parent == ROOT / "docs" / "runbooks"
        assert f"`{rule['alert']}`" in page.read_text(), rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_every_process_is_missed() -> None:
    [absent] = [rule["expr"] for rule in rules() if rule["alert"] == "ProcessAbsent"]
    named = set(re.findall(r'service_name="([\w-]+)"', absent))
    assert named == {f"{service}-{kind}" for service in SERVICES for kind in ("app", "worker")}


def test_page_has_the_metrics_as_they_are_declared() -> None:
    page = (ROOT / "docs" / "telemetry.md").read_text()
    told = re.findall(r"^\| `([\w.]+)` \| (\w+), (\S+) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    assert told == [
        (
            metric.name,
            metric.kind,
            metric.unit,
            ", ".join(f"`{label}`" for label in metric.labels),
            metric.description,
        )
        for metric in DECLARED
    ]


def test_page_names_the_variables_of_the_example() -> None:
    page = (ROOT / "docs" / "telemetry.md").read_text()
    example = re.findall(r"^(OTEL_\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert example
    assert [name for name in example if f"`{name}`" not in page] == []


@pytest.mark.skipif(
    shutil.which(PROMTOOL[0]) is None,
    reason="promtool is missing: it is in Debian's package prometheus (apt-get install prometheus), or"
    " PROMTOOL='docker run ...' says where it is",
)
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "monitor/prometheus.yml"),
        ("check", "rules", "monitor/rules/ticketing.yml"),
        ("test", "rules", "monitor/rules/tests/ticketing.yml"),
    ],
    ids=" ".join,
)
def test_promtool_has_nothing_to_say_against(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([*PROMTOOL, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
