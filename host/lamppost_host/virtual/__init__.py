"""Virtual boards: the firmware in MicroPython's unix port, with simulated buses and a flash that survives a kill."""
