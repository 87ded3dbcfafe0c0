"""docs/dependencies.md names what the pyproject.toml files ask for, no more and no less."""

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = sorted(path for path in ROOT.glob("**/pyproject.toml") if ".venv" not in path.parts)
ROW = re.compile(r"^\| ([\w.-]+) \| (.*?) \| (.*?) \| (.*?) \|$", re.MULTILINE)


def name_of(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found, requirement
    return found[0].lower().replace("_", "-")


def requirements_of(project: Path) -> set[str]:
    """Of one pyproject.toml, those of the workspace's own packages too."""
    told: dict[str, Any] = tomllib.loads(project.read_text())
    lists = [told["project"].get("dependencies", []), told.get("build-system", {}).get("requires", [])]
    lists += told["project"].get("optional-dependencies", {}).values()
    lists += told.get("dependency-groups", {}).values()
    return {each for listed in lists for each in listed if isinstance(each, str)}


def asked_for(project: Path) -> set[str]:
    return {name_of(each) for each in requirements_of(project)}


def with_extras(project: Path) -> set[str]:
    """`psycopg[pool]` asks for psycopg-pool as well, `granian[uvloop]` for uvloop."""
    names = asked_for(project)
    for each in requirements_of(project):
        for extra in re.findall(r"[\w-]+", each.partition("[")[2].partition("]")[0]):
            names |= {extra, f"{name_of(each)}-{extra}"}
    return names


OWN = {tomllib.loads(path.read_text())["project"]["name"] for path in PROJECTS}
ROWS = {
    name_of(row[1]): row[4]
    for row in ROW.finditer((ROOT / "docs" / "dependencies.md").read_text())
    if row[1] != "package"
}


def test_page_names_every_dependency_and_nothing_else() -> None:
    assert len(PROJECTS) >= 9
    assert set(ROWS) == set().union(*(asked_for(path) for path in PROJECTS)) - OWN


@pytest.mark.parametrize("package", ROWS)
def test_licence_is_the_one_that_the_package_names(package: str) -> None:
    try:
        told = metadata(package)
    except PackageNotFoundError:
        assert package == "uv-build", "built with, not installed"
        return
    classifiers = [each for each in told.get_all("Classifier") or [] if each.startswith("License")]
    [licence] = told.get_all("License-Expression") or told.get_all("License") or [""]
    names = " ".join([licence, *classifiers])
    words = {"apache": "Apache", "bsd": "BSD", "gpl": "GPL", "lgpl": "LGPL", "mit": "MIT", "mpl": "MPL"}
    found = {word for key, word in words.items() if re.search(rf"\b{key}", names, re.IGNORECASE)}
    written = {word for word in words.values() if re.search(rf"\b{word}", ROWS[package])}
    assert (found or {names.strip()}) == (written or {ROWS[package]}), names


def imports_of(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*.py"):
        if path.name != "testing.py":  # for tests, which have the packages of the whole workspace
            yield from re.findall(r"^ *(?:import|from) (\w+)", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("project", PROJECTS[1:], ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_project_asks_for_what_it_imports(project: Path) -> None:
    """What libs asks for, its services have too."""
    asked = with_extras(project)
    if "libs" in asked:
        asked |= with_extras(ROOT / "libs" / "pyproject.toml")
    distributions = packages_distributions()
    missing: dict[str, list[str]] = {}
    for module in set(imports_of(project.parent / "src")) - set(sys.stdlib_module_names):
        providers = [name_of(each) for each in distributions.get(module, [module])]
        if not asked & set(providers):
            missing[module] = providers
    own = name_of(tomllib.loads(project.read_text())["project"]["name"])
    missing = {module: by for module, by in missing.items() if own not in by}
    assert missing == {}
