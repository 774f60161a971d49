"""What workers run: from the packages that a user has to an image in a registry."""
