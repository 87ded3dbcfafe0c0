"""A copy of the contracts and of the services' code, to plant changes in."""

import importlib.util
import json
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from contracts.check import problems
from contracts.definitions import CONTRACTS, read_contracts
from contracts.generate import stale_files


class Repository:
    """`contracts/` and `services/` in a folder of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.contracts = root / "contracts"

    def problems(self) -> list[str]:
        """What `make check` says, once `make contracts` has written its files."""
        self.generate()
        return problems(self.root)

    def generate(self) -> None:
        for path, source in stale_files(read_contracts(self.contracts), self.contracts).items():
            (self.contracts / path).write_text(source)

    @contextmanager
    def schema(self, name: str) -> Generator[dict[str, Any]]:
        """The schema of a message, to change."""
        with self._json(f"schemas/{name}.json") as schema:
            yield schema

    @contextmanager
    def example(self, name: str) -> Generator[dict[str, Any]]:
        with self._json(f"examples/{name}.json") as example:
            yield example

    @contextmanager
    def _json(self, path: str) -> Generator[dict[str, Any]]:
        file = self.contracts / path
        document = json.loads(file.read_text())
        yield document
        file.write_text(json.dumps(document))

    def replace(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def add_version(self, message_type: str, version: int) -> None:
        """A next version beside the first, as yet the same."""
        name = f"{message_type}.v{version}"
        for folder in ("schemas", "examples"):
            shutil.copy(
                self.contracts / folder / f"{message_type}.v1.json", self.contracts / folder / f"{name}.json"
            )
        with self.schema(name) as schema:
            schema["$id"] = f"{name}.json"

    def messages(self) -> ModuleType:
        """The generated structs, imported."""
        self.generate()
        path = self.contracts / "src" / "contracts" / "messages.py"
        spec = importlib.util.spec_from_file_location("planted_messages", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    ignore = shutil.ignore_patterns("__pycache__", "tests")
    shutil.copytree(CONTRACTS, tmp_path / "contracts", ignore=ignore)
    for service in (CONTRACTS.parent / "services").iterdir():
        for folder in ("src", "migrations"):
            if (service / folder).is_dir():
                shutil.copytree(
                    service / folder, tmp_path / "services" / service.name / folder, ignore=ignore
                )
    return Repository(tmp_path)
