"""What configurations name of `palegreen.tmpl`."""

from __future__ import annotations


def _template(name: str) -> str:
    return f'{{{{ template "palegreen.{name}" . }}}}'


CLIENT = "Palegreen"
TITLE = _template("title")
DASHBOARD = _template("dashboard")
RUNBOOK = _template("runbook")
RUNBOOK_LABEL = "Runbook"
SLACK_COLOR = _template("slack.color")
SLACK_TITLE = _template("slack.title")
SLACK_TEXT = _template("slack.text")
EMAIL_TEXT = _template("email.text")
EMAIL_HTML = _template("email.html")
# Alertmanager adds num_firing and num_resolved, and lists of labels where these two are not given.
PAGERDUTY_DETAILS = {"firing": _template("pagerduty.firing"), "resolved": _template("pagerduty.resolved")}
PAGERDUTY_FIELDS = {
    "class": "{{ .CommonLabels.verdict }}",
    "component": "{{ .CommonLabels.model }}{{ .CommonLabels.node }}",
    "group": "{{ .CommonLabels.endpoint }}",
}
