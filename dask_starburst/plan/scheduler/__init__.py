"""Decisions of the scheduler's plugins: notices, moving data, shutdown, tasks that cannot run."""
