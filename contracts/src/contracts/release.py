"""Makes the contracts as they are the release that later changes are held against.

python -m contracts.release                refuses what would break a consumer on the release before
python -m contracts.release --breaking     also that: for when no consumer and no message of it is left
"""

import argparse
import shutil
import sys
from pathlib import Path

from contracts.compatibility import CHECKSUMS, RELEASED, breaking_changes, checksums, released_problems
from contracts.definitions import CONTRACTS, InvalidContracts, read_contracts
from contracts.generate import stale_files


def release(folder: Path = CONTRACTS, *, breaking: bool = False) -> list[str]:
    """Writes `released/` and returns the names of the files that changed. Raises `InvalidContracts`."""
    contracts = read_contracts(folder)
    released = folder / RELEASED
    problems = [f"contracts/{path} is stale: run `make contracts`" for path in stale_files(contracts, folder)]
    if released.exists():
        problems.extend(released_problems(folder))
        if not breaking and not problems:
            problems.extend(f"contracts/{each}" for each in breaking_changes(contracts, folder))
    if problems:
        raise InvalidContracts(problems)
    before = checksums(released)
    shutil.rmtree(released, ignore_errors=True)
    (released / "schemas").mkdir(parents=True)
    shutil.copy(folder / "topics.yaml", released)
    for message in contracts.messages.values():
        shutil.copy(folder / "schemas" / f"{message.name}.json", released / "schemas")
    after = checksums(released)
    # In the form that `sha256sum --check` reads.
    (released / CHECKSUMS).write_text("".join(f"{sum_}  {name}\n" for name, sum_ in after.items()))
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def main() -> None:
    parser = argparse.ArgumentParser(description="Release the contracts")
    parser.add_argument(
        "--breaking", action="store_true", help="also what breaks consumers on the last release"
    )
    try:
        changed = release(breaking=parser.parse_args().breaking)
    except InvalidContracts as error:
        sys.exit("".join(f"contracts: {each}\n" for each in error.problems) + "contracts: nothing released")
    for name in changed:
        print(f"contracts/{RELEASED}/{name}")
    print(f"contracts: {len(changed)} files released" if changed else "contracts: released already")


if __name__ == "__main__":
    main()
