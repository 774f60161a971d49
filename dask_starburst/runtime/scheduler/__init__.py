"""What runs beside the scheduler."""
