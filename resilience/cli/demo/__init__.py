"""The demonstration: one load, two equal upstreams that break down, one of them called with protection.

plan.py       the phases, the load and every number of the demonstration
run.py        starts everything, begins, waits, ends everything
children.py   the processes, seen from the parent        child.py      the same, seen from the child
upstream.py   a child: the server                        worker.py     a child: the callers
due.py        when each permit of the shared limit became valid
tally.py      what happened, counted                     promises.py   what must have been kept
live.py       the table while it runs                    report.py     the summary
"""
