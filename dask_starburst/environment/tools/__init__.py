"""uv, cancellation of work in threads, and the cache folder."""
