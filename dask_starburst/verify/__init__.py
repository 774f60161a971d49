"""``starburst verify``: ask a real account what only a real account can tell, within a cost cap."""
