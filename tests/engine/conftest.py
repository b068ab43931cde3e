from resilience.testing.fixtures import anyio_backend, virtual_clock

__all__ = ["anyio_backend", "virtual_clock"]
