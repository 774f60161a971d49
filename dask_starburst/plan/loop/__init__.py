"""Decisions of the control loop: state transitions of workers, and the next requests to AWS."""
