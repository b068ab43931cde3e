"""The command line: `resilience`, or `python -m resilience`.

    resilience demo

Only this module is always there; the commands need the extra `cli`, and say so if it is missing.
"""

from __future__ import annotations

import sys
from importlib import import_module


def main() -> None:
    """Run the command line and exit with its status."""
    for module in ("typer", "rich"):
        try:
            import_module(module)
        except ModuleNotFoundError:
            sys.exit(f"resilience: the command line needs {module}: pip install 'anyresilience[cli]'")
    from .cli.app import app

    app()


if __name__ == "__main__":
    main()
