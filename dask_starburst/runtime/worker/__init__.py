"""What runs beside each worker, in its nanny."""
