"""The demo: launch, use and close a cluster on the embedded AWS, with a real job."""
