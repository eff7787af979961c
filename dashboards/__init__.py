"""Grafana dashboards, generated: the boards in `boards/`, what they have in common beside them."""
