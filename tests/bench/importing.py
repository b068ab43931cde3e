"""What an import costs: fresh interpreters, in turns.

Bar: `import resilience` at most twice `import anyio`, its one dependency.
"""

from __future__ import annotations

import subprocess
import sys
from statistics import median

from tests.bench.peers import PEERS, installed
from tests.bench.report import Bar, Report, Table

PROBE = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"

OURS = {
    "resilience": "import resilience",
    "anyio": "import anyio",
    "asyncio": "import asyncio",
    "resilience, every name": "from resilience import *",
    "resilience, a pipeline": "from resilience import CircuitBreaker, Pipeline, Retry, Timeout",
}


def run(size: float = 1.0) -> Report:
    """Run the benchmark: 21 fresh interpreters for each statement at size 1."""
    report = Report("import")
    statements = dict(OURS)
    for distribution, name in PEERS.items():
        version = installed(distribution)
        if version is None:
            report.missing[distribution] = "not installed here: run with `uv run --group bench`"
        else:
            report.peers[distribution] = version
            statements[distribution] = f"import {name}"
    found: dict[str, list[float]] = {name: [] for name in statements}
    failed: dict[str, str] = {}
    for turn in range(max(1, round(21 * size)) + 1):
        for name, statement in statements.items():
            if name in failed:
                continue
            try:
                milliseconds = seconds(statement) * 1000
            except subprocess.CalledProcessError as error:
                failed[name] = str(error.stderr).strip().splitlines()[-1]
                continue
            if turn:  # the first fills the caches of compiled files
                found[name].append(milliseconds)
    report.missing |= {name: f"cannot be imported: {reason}" for name, reason in failed.items()}
    table = Table("import in a fresh interpreter", ("", "median ms", "least ms", "x anyio"), chart="median ms")
    base = median(found["anyio"])
    for name in sorted((name for name in found if found[name]), key=lambda name: median(found[name])):
        table.add(name, median(found[name]), min(found[name]), median(found[name]) / base)
    report.tables.append(table)
    report.notes.append("resilience and anyio import most of themselves when a name is first used; see the other rows")
    report.bars.append(Bar("import resilience / import anyio", median(found["resilience"]) / base, 2.0))
    return report


def seconds(statement: str) -> float:
    """How long a fresh interpreter takes for one statement."""
    command = [sys.executable, "-c", PROBE.format(statement)]
    return float(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
