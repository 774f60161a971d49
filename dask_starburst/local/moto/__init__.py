"""Every change that we make to moto."""
