"""EC2 of the embedded AWS: instances, capacity, Spot, instance metadata."""
