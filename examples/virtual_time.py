"""Test an hour of waiting in no time: virtual time, a scripted dependency, recorded events."""

from resilience import Backoff, Pipeline, Retry, Timeout
from resilience.testing import HANG, EventRecorder, FaultScript, run

dependency = FaultScript(ConnectionError("down"), HANG, "up")
recorder = EventRecorder()
pipeline = Pipeline(Retry(backoff=Backoff.constant(600), budget=None), Timeout(1800), listeners=[recorder])

for backend in ("asyncio", "trio"):
    dependency.calls.clear()
    dependency.started.clear()
    print(backend, run(pipeline.call, dependency, backend=backend), dependency.started)
print(recorder.kinds()[:4])

# Prints:
# asyncio up [0.0, 600.0, 3000.0]
# trio up [0.0, 600.0, 3000.0]
# ['retry_scheduled', 'call_timed_out', 'retry_scheduled', 'call_succeeded']
