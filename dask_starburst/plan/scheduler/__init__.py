"""What is decided beside the scheduler: notices, moving data, shutting down, tasks that cannot run."""
