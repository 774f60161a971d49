"""State, clock and timers of the embedded AWS."""
