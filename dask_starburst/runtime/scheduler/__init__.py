"""Scheduler preloads and plugins."""
