"""The one place where tests put policies to work, so that every way of running them passes the same tests.

    protected = engine(Retry(attempts=2))
    await protected.call(script)

`alone` runs a policy by itself, `pipeline` folds it into a Pipeline, `nested` into a pipeline in a pipeline. An
engine that runs pipelines in another way is one more line in `ENGINES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import pytest

from resilience import Pipeline, Policy
from resilience.engine import build
from resilience.policy import Enclosing

Engine: TypeAlias = Callable[..., Enclosing]
"""Returns the policies at work. Retry and Fallback are no `Enclosing`; only tests that know use `guard`."""


def alone(*policies: Policy, name: str | None = None, **options: Any) -> Enclosing:
    """The policy itself; several of them need a pipeline in any case."""
    if len(policies) == 1 and not options:
        return cast(Enclosing, policies[0])
    return Pipeline(*policies, name=name, **options)


def pipeline(*policies: Policy, name: str | None = None, **options: Any) -> Enclosing:
    return Pipeline(*policies, name=name or policies[0].name, **options)


def nested(*policies: Policy, name: str | None = None, **options: Any) -> Enclosing:
    return Pipeline(
        *(Pipeline(policy, name=policy.name) for policy in policies), name=name or policies[0].name, **options
    )


ENGINES: dict[str, Engine] = {"alone": alone, "pipeline": pipeline, "nested": nested}


@pytest.fixture(params=["alone-plain", "pipeline-fused", "pipeline-plain", "nested-fused"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Each way of running policies in turn, each in one generated frame and by hooks alone."""
    name, path = str(request.param).split("-")
    monkeypatch.setattr(build, "fused", path == "fused")
    return ENGINES[name]
