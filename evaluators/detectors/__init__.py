"""Detectors: streaming statistics with a declared run length to false alarm, one a file, constant memory."""
