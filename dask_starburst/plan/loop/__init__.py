"""What the control loop decides: which worker moves to which state, and what to ask of AWS next."""
