from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

import resilience
from resilience.cli.app import app, require

RUNNER = CliRunner()


def test_the_version() -> None:
    result = RUNNER.invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.strip() == f"resilience {resilience.__version__}"


@pytest.mark.parametrize("option", [["--seconds", "1"], ["--workers", "0"], ["--workers", "1000"], ["--nonsense"]])
def test_options_out_of_range_are_refused(option: list[str]) -> None:
    result = RUNNER.invoke(app, ["demo", *option])
    assert result.exit_code == 2
    assert option[0] in result.stderr


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "nonsense"])
def test_a_server_that_was_asked_for_must_answer(url: str) -> None:
    result = RUNNER.invoke(app, ["demo", "--json", "--redis", url])
    assert result.exit_code == 2
    assert f"no answer from {url}" in result.stderr
    assert result.stdout == ""


def test_a_missing_module_is_named_with_its_extra(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        require("demo", "json", "no_such_module")
    assert ended.value.exit_code == 2
    assert "needs no_such_module: pip install 'anyresilience[demo]'" in capsys.readouterr().err


def test_nothing_is_said_when_nothing_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    require("demo", "json")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_without_the_extra_the_command_says_what_to_install(module: str) -> None:
    script = f"import sys; sys.modules[{module!r}] = None; from resilience.__main__ import main; main()"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.strip() == f"resilience: the command line needs {module}: pip install 'anyresilience[cli]'"


def test_the_module_is_the_command() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "resilience", "--version"], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == f"resilience {resilience.__version__}"


def test_the_library_does_not_import_its_command_line() -> None:
    script = "import resilience, sys; print([name for name in sys.modules if name.startswith('resilience.cli')])"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
