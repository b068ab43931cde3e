"""The public types, as mypy and pyright see them in strict mode, and what the one package tool says of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
API = "tests/typing/api.py"


def run(*command: str) -> str:
    """Run a checker; its output if it found nothing to complain about."""
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=300, cwd=ROOT)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return output


def test_mypy_agrees() -> None:
    # A cache of its own: another mypy may be writing to the common one.
    assert "no issues found in 1 source file" in run("mypy", "--cache-dir", ".mypy_cache/typing", API)


def test_pyright_agrees() -> None:
    assert "0 errors, 0 warnings" in run("pyright", API)


def test_every_public_symbol_has_a_known_type() -> None:
    assert "Type completeness score: 100%" in run("pyright", "--verifytypes", "resilience", "--ignoreexternal")


def test_the_file_holds_mistakes_that_would_be_found(tmp_path: Path) -> None:
    """Without its ignores the file must fail in as many places as it has ignores."""
    text = (ROOT / API).read_text()
    mistakes = text.count("# type: ignore[")
    assert mistakes > 20
    bare = tmp_path / "without_ignores.py"
    bare.write_text("\n".join(line.split("  # type: ignore[")[0] for line in text.splitlines()))
    command = [sys.executable, "-m", "mypy", "--cache-dir", ".mypy_cache/typing", str(bare)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert f"Found {mistakes} errors in 1 file" in done.stdout
