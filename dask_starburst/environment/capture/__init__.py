"""What a user's environment has: from the running Python, from files, from conda."""
