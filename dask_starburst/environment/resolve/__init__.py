"""Which files to install on which platform."""
