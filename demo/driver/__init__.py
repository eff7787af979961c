"""A simulated GPU driver: a libnvidia-ml.so.1 that the real binding loads, driven by a scenario file."""
