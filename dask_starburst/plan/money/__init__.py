"""What things cost, and decisions about it: caps, quotes, estimates, advice."""
