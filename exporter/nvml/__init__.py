"""The GPU driver through NVML: one worker per GPU, events, library state."""
