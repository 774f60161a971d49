"""Patches of moto."""
