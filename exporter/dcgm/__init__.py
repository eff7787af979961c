"""GPUs as NVIDIA's dcgm-exporter sees them: a typed client of its page, and the source that fills NVML's gaps."""
