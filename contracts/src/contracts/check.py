"""Says what is wrong with the contracts, and where the code does something else than they say.

python -m contracts.check      exit 1 when there is something
"""

import sys
from pathlib import Path

from contracts.compatibility import breaking_changes, released_problems
from contracts.definitions import CONTRACTS, InvalidContracts, read_contracts
from contracts.generate import stale_files
from contracts.usage import usage_problems


def problems(repository: Path = CONTRACTS.parent) -> list[str]:
    """A sentence for each; paths are relative to the repository."""
    folder = repository / "contracts"
    try:
        contracts = read_contracts(folder)
        stale = stale_files(contracts, folder)
    except InvalidContracts as error:
        broken = breaking_changes(error.but_for_examples, folder) if error.but_for_examples else []
        return [f"contracts/{each}" for each in (*broken, *error.problems)]
    found = [
        f"contracts/{path} is not what the contracts say: run `make contracts` and commit it"
        for path in stale
    ]
    found.extend(tampered := released_problems(folder))
    if not tampered:
        found.extend(f"contracts/{each}" for each in breaking_changes(contracts, folder))
    found.extend(usage_problems(contracts, repository / "services"))
    return found


def main() -> None:
    found = problems()
    if found:
        sys.exit("\n".join(found))
    print("contracts: files, last release and code agree")


if __name__ == "__main__":
    main()
