"""Nanny preloads."""
