"""Calls AWS for `plan`: sets up the account, checks out a pool, and keeps it at the requested size."""
