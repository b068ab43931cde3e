"""Check the installed distribution from outside its sources: `check_wheel.py all | none` (which extras)."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import pkgutil
import sys
from pathlib import Path

NEEDS = {  # what to import, and the extra it is to ask for when its library is missing
    "resilience.settings": "settings",
    "resilience_httpx": "httpx",
    "resilience_llm": "httpx",
    "resilience_redis": "redis",
    "resilience_structlog": "structlog",
}
USERS_OWN = {"resilience.testing._trio", "resilience.testing.fixtures"}
"""Modules for trio and pytest, which whoever imports them has already."""


def every_module() -> list[str]:
    """All modules that the wheel brought, by its own record."""
    files = importlib.metadata.files("anyresilience") or []
    modules = {".".join(file.with_suffix("").parts) for file in files if file.suffix == ".py"}
    return sorted(
        name.removesuffix(".__init__")
        for name in modules
        if not name.endswith("__main__") and name.removesuffix(".__init__") not in USERS_OWN
    )


def use_the_core() -> None:
    """One call through everything."""
    from resilience import Bulkhead, CircuitBreaker, Fallback, Pipeline, RateLimiter, Retry

    pipeline = Pipeline.standard(
        fallback=Fallback("fallback"),
        bulkhead=Bulkhead(2),
        retry=Retry(attempts=2),
        breaker=CircuitBreaker(),
        limiter=RateLimiter("100/s"),
    )

    @pipeline
    async def answer(value: int) -> int:
        return value

    assert asyncio.run(answer(42)) == 42


def main(extras: str) -> None:
    """Import what can be imported, and hear what the rest has to say."""
    import resilience

    assert Path(resilience.__file__ or "").is_relative_to(sys.prefix), "not the installed package"
    use_the_core()
    if extras == "all":
        modules = every_module()
        for name in modules:
            importlib.import_module(name)
        lua = [file for file in importlib.metadata.files("anyresilience") or [] if file.suffix == ".lua"]
        assert lua, "the wheel has no scripts"
        print(f"{len(modules)} modules imported, {len(lua)} scripts, with every extra")
        return
    installed = {module.name for module in pkgutil.iter_modules()}
    assert not installed & {"httpx", "httpx2", "redis", "pydantic", "structlog", "typer"}
    for name, extra in NEEDS.items():
        try:
            importlib.import_module(name)
        except ImportError as error:
            said = str(error)
        else:
            said = "nothing"
        assert f"anyresilience[{extra}]" in said, f"without its extra {name} says {said}"
    print(f"the core works with anyio alone, and {len(NEEDS)} others say what they need")


if __name__ == "__main__":
    main(sys.argv[1])
