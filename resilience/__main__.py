"""The command line: `resilience`, or `python -m resilience`.

    resilience demo

Only this module is always there; the commands need the extra `cli`, and say so if it is missing.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        from .cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(f"resilience: the command line needs {error.name}: pip install 'anyresilience[cli]'")
    app()


if __name__ == "__main__":
    main()
