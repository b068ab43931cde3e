"""The demonstration: one load, two equal upstreams that break down, one of them called with protection.

    run.py        starts everything, begins, watches, ends everything
    plan.py       the phases, the load and every number of the demonstration
    children.py   child processes, seen from the parent      child.py      the same, seen from the child
    upstream.py   a child: the server                        worker.py     a child: makes the calls
    caller.py     how calls are made without protection      protected.py  how they are made with it
    redis_server.py   finds or starts the server that they share
    due.py        when each permit of the shared limit became valid
    tally.py      what happened, counted                     promises.py   what must have been kept
    live.py       the table while it runs                    report.py     the summary

Nothing here is imported by the library.
"""
