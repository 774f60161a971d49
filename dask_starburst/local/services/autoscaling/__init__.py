"""Auto Scaling of the embedded AWS."""
