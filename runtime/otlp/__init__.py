"""What the daemons send out by OTLP, with the extra `otel`."""
