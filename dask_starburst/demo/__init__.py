"""The demo: the whole life of a cluster on the embedded AWS, with real work."""
