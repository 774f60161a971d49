"""Containers of the embedded AWS: real processes, their images, logs and secrets."""
