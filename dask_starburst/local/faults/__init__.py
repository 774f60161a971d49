"""Faults to order: scripts of what may happen to an embedded AWS."""
