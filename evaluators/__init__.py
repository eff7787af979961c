"""The sidecar: taps -> samples -> redaction -> features -> checks -> exposition, events and store."""
