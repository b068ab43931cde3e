from resilience.testing.fixtures import anyio_backend, virtual_clock
from tests.support.engine import engine

__all__ = ["anyio_backend", "engine", "virtual_clock"]
