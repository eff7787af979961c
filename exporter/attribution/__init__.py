"""Who uses the GPUs: process -> cgroup -> container, pod or systemd unit."""
