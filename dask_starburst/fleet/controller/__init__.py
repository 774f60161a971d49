"""The loop that makes AWS match what is requested: observe, decide, execute, report."""
