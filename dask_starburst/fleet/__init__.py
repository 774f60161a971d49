"""The shell around `plan`: sets the account up, checks a pool out, and keeps it as wished."""
