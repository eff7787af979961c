"""The per-node daemon: sources -> readings -> snapshot -> exposition."""
