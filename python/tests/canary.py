"""The tests with other versions than the locked ones, and a table of what would break.

``make canary`` runs it in an environment of the newest versions. Warnings are no errors here, but
they are in ``make test``: the table counts them too. Ends with the status of pytest.
"""

import os
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import distributions, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "python" / "requirements" / "models.txt"
UNKNOWN = "(not told)"
SHOWN = 3
"""How many tests the table names in one place."""


class Watch:
    """A plugin of pytest: which tests failed or warned, by the package where they did."""

    def __init__(self) -> None:
        self.failed: dict[str, set[str]] = defaultdict(set)
        self.warned: dict[str, set[str]] = defaultdict(set)
        self._names = packages_distributions()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._fail(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._fail(report)

    def pytest_warning_recorded(self, warning_message: Any, nodeid: str) -> None:
        self.warned[self._package([warning_message.filename])].add(nodeid or "(import)")

    def _fail(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed:
            traceback = getattr(report.longrepr, "reprtraceback", None)
            places = [
                getattr(e, "reprfileloc", None) for e in getattr(traceback, "reprentries", [])
            ]
            files = [place.path for place in places if place is not None]
            self.failed[self._package(files)].add(report.nodeid)

    def _package(self, files: list[str]) -> str:
        """Name the package of the last file that is not of pytest or this project."""
        for file in reversed(files):
            _, installed, path = file.replace(os.sep, "/").rpartition("site-packages/")
            name = path.partition("/")[0].removesuffix(".py")
            if installed and name not in ("sft", "_pytest", "pluggy"):
                return canonicalize_name(self._names.get(name, [name])[0])
        return UNKNOWN


def main() -> int:
    """Run the tests of the arguments, or all, and print the table."""
    watch = Watch()
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    filters = ["default", *(each for each in options["filterwarnings"] if each != "error")]
    override = "filterwarnings=" + "\n".join(filters)
    status = int(pytest.main(["--override-ini", override, *sys.argv[1:]], plugins=[watch]))
    print("\n".join(table(watch, locked(), installed())))
    return status


def locked() -> dict[str, str]:
    """Return the locked versions for this Python and system."""
    lines = (line.rstrip(" \\\n") for line in LOCK.read_text().splitlines())
    pins = [Requirement(line) for line in lines if "==" in line and not line.startswith((" ", "#"))]
    here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    return {canonicalize_name(pin.name): str(pin.specifier)[2:] for pin in here}


def installed() -> dict[str, str]:
    """Return the versions that are here."""
    return {canonicalize_name(each.name): each.version for each in distributions()}


def table(watch: Watch, old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    """Return the rows in Markdown: packages that moved, or where a test failed or warned."""
    moved = {name for name in old.keys() & new.keys() if old[name] != new[name]}
    blamed = watch.failed.keys() | watch.warned.keys()
    yield ""
    yield "| package | locked | newest | failing tests | tests that warn |"
    yield "|---|---|---|---|---|"
    for name in sorted(moved | blamed):
        cells = [_named(watch.failed.get(name, set())), _named(watch.warned.get(name, set()))]
        yield f"| {name} | {old.get(name, '-')} | {new.get(name, '-')} | {' | '.join(cells)} |"
    if not moved | blamed:
        yield "| all | as locked | as locked | none | none |"


def _named(tests: set[str]) -> str:
    """Count the tests and name the first of them."""
    names = [test.replace("|", "\\|") for test in sorted(tests)]
    more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return f"{len(names)}: " + ", ".join(names[:SHOWN] + more) if names else "none"


if __name__ == "__main__":
    sys.exit(main())
