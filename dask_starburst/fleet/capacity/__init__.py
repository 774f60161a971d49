"""Where workers run: instances and tasks of one platform, behind one interface."""
