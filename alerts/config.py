"""Configuration of `palegreen alerts build --config FILE`: what rules and routes are generated for."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Severity = Literal["critical", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
OWNERS = ("platform", "model")

_SECRETS = "/etc/alertmanager/secrets/palegreen"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _runbook_url(value: str) -> str:
    if "{alert}" not in value or re.search(r"[{}]", value.replace("{alert}", "")):
        raise ValueError(f"got {value!r}; allowed: a URL with {{alert}} where the name of the alert is put in")
    return value


_HTTP = r"^https?://[^\s/?#@{}]+([/?]%s*)?$"
# Braces would be taken for templates of the alerts that the link is in.
Url = Annotated[str, Field(pattern=_HTTP % r"[^\s{}]")]
RunbookUrl = Annotated[str, Field(pattern=_HTTP % r"\S"), AfterValidator(_runbook_url)]
Limit = Annotated[float, Field(strict=True, ge=0)]
SecretFile = Annotated[str, Field(min_length=1, pattern=r"[^/]$")]
AlertName = Annotated[str, Field(pattern=r"^Palegreen[A-Z][A-Za-z0-9]*$")]
Audience = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=63)]
Time = Annotated[float, Field(ge=0.001, le=86400)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Part(BaseModel):
    """A part of the configuration: unknown keys are refused, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PagerDuty(Part):
    """Events API v2 of PagerDuty."""

    routing_key_file: SecretFile = Field(description="file with the integration's routing key")


class Slack(Part):
    """An incoming webhook of Slack, or of what understands its messages."""

    api_url_file: SecretFile = Field(description="file with the webhook's URL")
    channel: str = Field("", description="channel, where the webhook is not bound to one")


class Email(Part):
    """One address and the server that takes mail for it."""

    to: str = Field(min_length=3, description="addresses, separated by commas")
    from_: str = Field(alias="from", min_length=3, description="address that mails are from")
    smarthost: str = Field(pattern=r"^\S+:\d+$", description="mail server, HOST:PORT; it must offer TLS")
    auth_username: str = Field("", description="user at the mail server; without it, none is told")
    auth_password_file: SecretFile | None = Field(None, description="file with that user's password")

    @model_validator(mode="after")
    def _together(self) -> Email:
        if bool(self.auth_username) != (self.auth_password_file is not None):
            raise ValueError("auth_username and auth_password_file go together; allowed: both or neither")
        return self


class Webhook(Part):
    """A program of your own, which gets Alertmanager's JSON."""

    url: Url | None = Field(None, description="where it is posted; not for URLs that are secret")
    url_file: SecretFile | None = Field(None, description="or a file with the URL")
    bearer_token_file: SecretFile | None = Field(None, description="file with a token that is sent along")

    @model_validator(mode="after")
    def _one(self) -> Webhook:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("a webhook needs one place to post to; allowed: either url or url_file")
        return self


class Channel(Part):
    """One way to tell somebody: exactly one of these keys."""

    pagerduty: PagerDuty | None = Field(None, description="page through PagerDuty")
    slack: Slack | None = Field(None, description="message in Slack")
    email: Email | None = Field(None, description="e-mail")
    webhook: Webhook | None = Field(None, description="HTTP request to a program")

    @model_validator(mode="after")
    def _one(self) -> Channel:
        if sum(value is not None for _, value in self) != 1:
            raise ValueError("a channel is of one kind; allowed: one of pagerduty, slack, email, webhook")
        return self

    @property
    def settings(self) -> PagerDuty | Slack | Email | Webhook:
        """Those of its kind."""
        (settings,) = (kind for kind in (self.pagerduty, self.slack, self.email, self.webhook) if kind is not None)
        return settings


class Channels(Part):
    """Who is told at each severity. A key that is left out is the owner's (of a team) or the platform's."""

    critical: tuple[Channel, ...] | None = Field(None, description="a person is woken")
    warning: tuple[Channel, ...] | None = Field(None, description="a ticket, in working hours; [] for nobody")
    info: tuple[Channel, ...] | None = Field(None, description="nobody, unless given here")


class Watchdog(Part):
    """A dead man's switch: told every minute that all is well, it calls when it is told no more."""

    webhook: Webhook | None = Field(None, description="where PalegreenWatchdog is posted; none if left out")


class Latency(Part):
    """How fast the good requests are; at least one of the times."""

    ratio: Share = Field(
        0.99, description="share of requests that is to be within the time, of each time that is given"
    )
    ttft_seconds: Time | None = Field(None, description="time to first token")
    inter_token_seconds: Time | None = Field(None, description="time between two tokens")
    queue_seconds: Time | None = Field(None, description="time in the engine's queue")

    @model_validator(mode="after")
    def _some(self) -> Latency:
        if self.ttft_seconds is None and self.inter_token_seconds is None and self.queue_seconds is None:
            raise ValueError(
                "no time is given; allowed: at least one of ttft_seconds, inter_token_seconds, queue_seconds"
            )
        return self


class Availability(Part):
    """How many requests are served."""

    ratio: Share = Field(0.999, description="share of requests that is to be served")


class Quality(Part):
    """How many sampled responses pass their checks."""

    ratio: Share = Field(0.95, description="share of sampled responses that is to pass")


class Objectives(Part):
    """Service-level objectives; one that is left out is not declared."""

    latency: Latency | None = Field(None, description="how fast")
    availability: Availability | None = Field(None, description="how surely")
    quality: Quality | None = Field(None, description="how well")


class Model(Part):
    """What is declared of a model."""

    model: str = Field(min_length=1, description="its name, the label model")
    endpoint: str = Field("", description="the service it is declared for, the label endpoint; all, if left out")
    namespace: str = Field("", description="the namespace it is declared for; all, if left out")
    team: Audience | Literal[""] = Field(
        "", description="who is told of what its owner must see to: a key of receivers"
    )
    objectives: Objectives = Field(Objectives(), description="its service-level objectives")


def _pages_and_tickets(owner: str) -> Channels:
    return Channels(
        critical=(Channel(pagerduty=PagerDuty(routing_key_file=f"{_SECRETS}/pagerduty-{owner}")),),
        warning=(Channel(slack=Slack(api_url_file=f"{_SECRETS}/slack-{owner}", channel=f"#palegreen-{owner}")),),
    )


class AlertsConfig(Part):
    """Everything that rules and routes can be told."""

    time_scale: float = Field(1, ge=1, description="every duration is divided by this, so that tests need not wait")
    thresholds: dict[str, Limit] = Field({}, description="other values of thresholds, by name (docs/thresholds.md)")
    disabled: tuple[AlertName, ...] = Field((), description="alerts that are not wanted")
    dashboard_url: Url = Field("https://grafana.example", description="where Grafana is; /d/... is put behind it")
    runbook_url: RunbookUrl = Field(
        "https://github.com/palegreen/palegreen/blob/main/docs/runbooks/{alert}.md",
        description="where runbooks are; {alert} is the alert's name",
    )
    models: tuple[Model, ...] = Field((), description="models, their teams and objectives")
    receivers: dict[Audience, Channels] = Field(
        {owner: _pages_and_tickets(owner) for owner in OWNERS},
        description="who is told, by owner (`platform`, `model`) or team; replaces the default as a whole",
    )
    watchdog: Watchdog = Field(
        Watchdog(webhook=Webhook(url_file=f"{_SECRETS}/watchdog-url")),
        description="a dead man's switch; {} for none",
    )

    @model_validator(mode="after")
    def _complete(self) -> AlertsConfig:
        platform = self.receivers.get("platform")
        if platform is None or not platform.critical or platform.warning is None:
            raise ValueError(
                "receivers: platform, who is told what nobody else is, lacks a channel for critical or a list for"
                " warning; allowed: receivers.platform with critical: [...] and warning: [...]"
            )
        declared = [(model.model, model.endpoint, model.namespace) for model in self.models]
        for at, key in enumerate(declared):
            if key in declared[:at]:
                raise ValueError(f"models[{at}]: {' '.join(filter(None, key))} is declared twice; allowed: once")
        return self

    def duration(self, seconds: float) -> str:
        """A duration as Prometheus and Alertmanager write it, divided by `time_scale`: whole seconds, at least 1."""
        left = max(1, round(seconds / self.time_scale))
        text = ""
        for unit in ("h", "m", "s"):
            count, left = divmod(left, _UNITS[unit])
            text += f"{count}{unit}" if count else ""
        return text

    def runbook(self, alert: str) -> str:
        """URL of an alert's runbook."""
        return self.runbook_url.replace("{alert}", alert)
