"""Tasks and time on asyncio and trio alike: parking a task, timers, deadlines, the sweep of timeouts, jobs, recalls."""
