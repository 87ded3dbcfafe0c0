"""What the pages point at is there: files, tests, other pages."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IGNORED = {".venv", ".local", "node_modules"}
PAGES = sorted(
    path.relative_to(ROOT) for path in ROOT.glob("**/*.md") if not IGNORED & set(path.relative_to(ROOT).parts)
)
FOLDERS = "|".join(
    sorted(re.escape(path.name) for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
)
# `services/x/y.py` or `services/x/y.py::test_z`, from the root; patterns like `services/*/tests` are none.
REFERENCE = re.compile(rf"`((?:{FOLDERS})/[\w./-]+)(?:::(\w+))?`")
LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)")


def names_of_tests(path: Path) -> set[str]:
    return set(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_everything_that_a_page_names_is_there(page: Path) -> None:
    text = (ROOT / page).read_text()
    missing: list[str] = []
    for name, test in REFERENCE.findall(text):
        path = ROOT / name
        if not path.exists() or (test and test not in names_of_tests(path)):
            missing.append(f"{name}::{test}" if test else name)
    missing += [link for link in LINK.findall(text) if not (ROOT / page).parent.joinpath(link).exists()]
    assert missing == []


def rows(page: str) -> list[list[str]]:
    """The cells of every line of every table."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def test_every_hazard_has_a_guard_and_a_test() -> None:
    hazards = {cells[0]: cells[1:] for cells in rows("hazards.md") if cells[0].isdigit()}
    assert sorted(map(int, hazards)) == list(range(1, 31))
    for number, (_, guard, test) in hazards.items():
        assert REFERENCE.search(guard), number
        assert re.search(r"::test_\w+`", test), number


def test_every_control_has_a_file_and_a_test() -> None:
    controls = [cells for cells in rows("security.md") if re.match(r"API\d|\d+\.\d+\.\d+", cells[0])]
    assert {f"API{number}" for number in range(1, 11)} <= {cells[0].split()[0] for cells in controls}
    for item, *_, control, test in controls:
        assert REFERENCE.search(control), item
        assert re.search(r"::test_\w+`", test), item
