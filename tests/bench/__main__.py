"""The benchmarks: `uv run --group bench python -m tests.bench NAME [--json] [--size SHARE] [--strict]`.

NAME is one of the benchmarks below or `all`, each then in a process of its own. Within a benchmark all libraries
are measured in the same process and run, in turns; what counts are the ratios. Exits with 0 also when a bar is
missed, unless `--strict` is given.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from tests.bench.report import Bar, Report

NAMES = ("policies", "stack", "http", "keys", "waiters", "redis", "import")
MODULES = {name: f"tests.bench.{name}" for name in NAMES} | {"import": "tests.bench.importing"}


def measure(name: str, size: float = 1.0) -> Report:
    """Run one benchmark at a share of its full size."""
    report: Report = import_module(MODULES[name]).run(size)
    report.size = size
    return report


def measure_apart(name: str, size: float) -> Report:
    """Run one benchmark in a new interpreter, where no other has left anything behind.

    If it breaks, the others still count, and the report says so with a bar that is missed.
    """
    command = [sys.executable, "-m", "tests.bench", name, "--json", "--size", str(size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], check=False)
    if done.returncode == 0:
        return Report.from_json(json.loads(done.stdout))
    broken = Report(name, notes=[f"broke off with exit status {done.returncode}"], size=size)
    broken.bars.append(Bar("runs to its end", float("nan"), 0.0))
    return broken


def main() -> int:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", choices=[*NAMES, "all"])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--size", type=float, default=1.0, help="share of the full size (default 1)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a bar is missed")
    options = parser.parse_args()
    reports: list[Report] = []
    run, names = (measure_apart, NAMES) if options.name == "all" else (measure, (options.name,))
    for name in names:
        reports.append(run(name, options.size))
        if not options.json:
            reports[-1].show()
    if options.json:
        found = [report.as_json() for report in reports]
        json.dump(found if options.name == "all" else found[0], sys.stdout, indent=1)
        print()
    missed = any(not bar.holds for report in reports for bar in report.bars)
    return 1 if missed and options.strict else 0


if __name__ == "__main__":
    sys.exit(main())
