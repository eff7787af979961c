"""From causes to a page: rules for Prometheus, routes for Alertmanager and the texts of its messages."""
