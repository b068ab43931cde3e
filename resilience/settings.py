"""Pipelines from plain data: a dictionary, JSON or TOML. Needs the extra `settings` (pydantic).

    settings = PipelineSettings.model_validate(
        {
            "name": "payments",
            "policies": [
                {"type": "timeout", "seconds": 10},
                {"type": "retry", "attempts": 3, "backoff": {"kind": "equal"}},
                {"type": "rate_limiter", "rates": ["100/s"], "name": "payments", "in_store": True},
            ],
        }
    )
    payments = settings.build(store=store)

The models are derived from the signatures of the policies, so options, defaults and rules are the same. What
is code (functions, exception types) cannot be said in data: give `build` a classifier instead.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from types import GenericAlias, NoneType, SimpleNamespace, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

try:
    from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator
except ModuleNotFoundError as _missing:
    if _missing.name != "pydantic":
        raise
    raise ImportError("resilience.settings needs pydantic: pip install 'anyresilience[settings]'") from _missing

from .events import Listener
from .limits.limit import Limit
from .machines.backoff import Backoff
from .machines.quantile import Quantile
from .pipeline import Pipeline
from .policies.bulkhead import Bulkhead
from .policies.cache import Cache
from .policies.circuit_breaker import CircuitBreaker
from .policies.fallback import Fallback
from .policies.hedge import Hedge
from .policies.rate_limiter import RateLimiter
from .policies.retry import Retry
from .policies.single_flight import SingleFlight
from .policies.timeout import Timeout
from .policy import Policy
from .store import Store
from .verdict import DEFAULT_CLASSIFIER, Classifier

__all__ = ["PipelineSettings", "PolicySettings"]

_CODE = {"self", "on", "on_result", "with_error", "random", "listeners", "store"} | {
    "key",
    "weigh",
    "max_weight",
    "negative",
    "negative_result",
    "codec",
}
"""Parameters that are code, or are given to `build`."""


class _Settings(BaseModel):
    """Strict: a number is no string and no bool, and an unknown option is an error."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, strict=True)
    makes: ClassVar[Callable[..., Any]]
    several: ClassVar[str] = ""
    """The field that holds the positional arguments, if there are any number of them."""

    def make(self, **more: Any) -> Any:
        """Call what the fields were derived from; what is left out keeps its default there."""
        given = {name: getattr(self, name) for name in self.model_fields_set - {"type", "in_store"}}
        options = {name: _made(value) for name, value in given.items()}
        return type(self).makes(*map(_made, options.pop(self.several, ())), **options, **more)

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.make()  # the rules are the policy's own
        return self


def _made(value: Any) -> Any:
    """The object that settings stand for; any other value as it is."""
    return value.make() if isinstance(value, _Settings) else value


class PolicySettings(_Settings):
    """One policy; `type` is the name of its module, such as `circuit_breaker`.

    The other fields are the options of the policy. With `in_store`, for policies that can share their state, it
    is kept in the store given to `build`.
    """

    type: str

    def build(self, store: Store | None = None) -> Policy:
        """Make the policy. Raises ValueError if it is to be shared and there is no store."""
        if not getattr(self, "in_store", False):
            policy: Policy = self.make()
        elif store is None:
            raise ValueError(f"store is required: {self.type} {getattr(self, 'name', None)!r} is to be in_store")
        else:
            policy = self.make(store=store)
        return policy


def _derive(base: type[_Settings], make: Any, **fields: Any) -> Any:
    """A model with the plain parameters of a constructor."""
    parameters = inspect.signature(make.__init__).parameters.values()
    plain = [parameter for parameter in parameters if parameter.name not in _CODE]
    written = SimpleNamespace(__annotations__={parameter.name: parameter.annotation for parameter in plain})
    hints = get_type_hints(written, vars(sys.modules[make.__module__]))
    several = ""
    for parameter in plain:
        name, default, hint = parameter.name, parameter.default, _plain(hints[parameter.name])
        if parameter.kind is parameter.VAR_POSITIONAL:
            several, hint = name, Annotated[GenericAlias(list, hint), Field(min_length=1)]
        fields[name] = (hint, ... if default is parameter.empty else default)
    model: Any = create_model(f"{make.__name__}Settings", __base__=base, __doc__=make.__doc__, **fields)
    model.makes, model.several = make, several
    return model


def _plain(hint: Any) -> Any:
    """The part of a type that data can express."""
    if hint in _PARTS:
        return _PARTS[hint]
    if get_origin(hint) not in (Union, UnionType):
        return hint
    kept = tuple(_plain(member) for member in get_args(hint) if _is_plain(member))
    return Union[kept]  # noqa: UP007 - made at run time from a tuple


def _is_plain(hint: Any) -> bool:
    return hint in (int, float, str, bool, NoneType, *_PARTS) or get_origin(hint) in (Literal, Mapping)


def _policy_model(kind: str, make: Any) -> Any:
    fields: dict[str, Any] = {"type": (Literal[kind], ...)}
    if "store" in inspect.signature(make.__init__).parameters:
        fields["in_store"] = (bool, False)
    return _derive(PolicySettings, make, **fields)


_PARTS: dict[Any, Any] = {}
"""What policies are made with that has options of its own, and the models for it."""
_PARTS.update({part: _derive(_Settings, part) for part in (Backoff, Limit, Quantile)})
_POLICIES: dict[str, Any] = {
    "timeout": Timeout,
    "retry": Retry,
    "hedge": Hedge,
    "circuit_breaker": CircuitBreaker,
    "bulkhead": Bulkhead,
    "rate_limiter": RateLimiter,
    "fallback": Fallback,
    "cache": Cache,
    "single_flight": SingleFlight,
}
_MODELS = [_policy_model(kind, make) for kind, make in _POLICIES.items()]

if TYPE_CHECKING:
    AnyPolicy: TypeAlias = "PolicySettings | PipelineSettings"
else:
    AnyPolicy = Annotated[Union[(*_MODELS, "PipelineSettings")], Field(discriminator="type")]


class PipelineSettings(BaseModel):
    """A pipeline: its `name`, and its `policies`, the first listed outermost; pipelines nest.

    Raises pydantic's ValidationError, which says where in the data the mistake is and which rule it breaks.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: Literal["pipeline"] = "pipeline"
    name: Annotated[str, Field(min_length=1)] | None = None
    policies: list[AnyPolicy]

    def build(
        self,
        *,
        store: Store | None = None,
        classifier: Classifier = DEFAULT_CLASSIFIER,
        listeners: Sequence[Listener] = (),
    ) -> Pipeline:
        """Make the pipeline. `store` holds the state of policies that are `in_store`.

        Raises ValueError if one is shared and there is no store, TypeError if the store cannot hold it.
        """
        parts: list[Policy] = []
        for part in self.policies:
            if isinstance(part, PipelineSettings):
                parts.append(part.build(store=store, classifier=classifier))
            else:
                parts.append(part.build(store))
        return Pipeline(*parts, classifier=classifier, name=self.name, listeners=listeners)
