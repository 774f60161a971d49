"""ECS of the embedded AWS."""
