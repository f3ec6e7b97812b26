"""Simulated hardware: sensors as registers and bytes, a flash in a file, and the world that they measure."""
