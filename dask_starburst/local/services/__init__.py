"""AWS services of the embedded AWS."""
