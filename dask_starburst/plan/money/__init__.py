"""Costs, and decisions about them: caps, quotes, estimates, advice."""
