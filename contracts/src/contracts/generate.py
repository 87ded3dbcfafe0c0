"""Writes what is generated from the contracts: Python, the AsyncAPI document, the page to read.

python -m contracts.generate
"""

import sys
from pathlib import Path

from contracts.asyncapi import asyncapi_source
from contracts.definitions import CONTRACTS, Contracts, InvalidContracts, read_contracts
from contracts.pages import page_source
from contracts.structs import messages_source, topics_source


def generated_files(contracts: Contracts) -> dict[str, str]:
    """The contents of each generated file by its path under `contracts/`. Raises `InvalidContracts`."""
    return {
        "src/contracts/messages.py": messages_source(contracts),
        "src/contracts/topics.py": topics_source(contracts),
        "asyncapi.yaml": asyncapi_source(contracts),
        "messages.md": page_source(contracts),
    }


def stale_files(contracts: Contracts, folder: Path = CONTRACTS) -> dict[str, str]:
    """Those of `generated_files` that are otherwise on disk."""
    return {
        path: source
        for path, source in generated_files(contracts).items()
        if not (folder / path).is_file() or (folder / path).read_text() != source
    }


def main() -> None:
    try:
        stale = stale_files(read_contracts())
    except InvalidContracts as error:
        sys.exit("".join(f"contracts: {each}\n" for each in error.problems) + "contracts: nothing written")
    for path, source in stale.items():
        (CONTRACTS / path).write_text(source)
        print(f"contracts/{path} written")
    if not stale:
        print("contracts: the generated files are up to date")


if __name__ == "__main__":
    main()
