"""`docs/configuration.md`, generated from the configuration's model: `python -m palegreen.cli.docs`."""

from __future__ import annotations

import sys
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from palegreen.cli.options import EVALUATE, NODE, Options, shown
from palegreen.evaluators.config import FIXED as EVALUATE_FIXED
from palegreen.evaluators.config import Pattern, RedactionConfig
from palegreen.evaluators.drift.config import DriftConfig
from palegreen.evaluators.judge.config import JudgeConfig
from palegreen.evaluators.probes.config import CanaryConfig
from palegreen.evaluators.probes.retrieval_config import HttpSearch, RetrievalConfig
from palegreen.exporter.config import FIXED as NODE_FIXED
from palegreen.exporter.config import EngineConfig, ModelSize
from palegreen.runtime.otlp.config import OtlpExportConfig

_PAGE = """\
# Configuration

Generated from `exporter/config.py` and `evaluators/config.py`; do not edit (`make docs`).

Each setting is a flag, an environment variable and a key of the file given with `--config` (`PALEGREEN_CONFIG`).
A flag wins over the variable, the variable over the file. Durations are written
`500ms`, `15s`, `1m30s` or as a number of seconds; sizes `512KiB`, `16MiB` or as a number of bytes.

The file is read again when it changes and on SIGHUP. A file that is refused leaves the configuration in force as it
is: one log line says where and why, and `palegreen_config_last_reload_successful` is 0 until it is mended.

# The node daemon: `palegreen node`

Engines of the file are joined with those of the flags, or of the variable, in which several URLs are separated by
blanks.

| key | flag | variable | default | meaning |
|---|---|---|---|---|
{settings}

\\* read once at the start; a change needs a restart.

## An engine

`engines` is a list. A flag `--engine URL` is an engine with nothing but its `url`.

| key | default | meaning |
|---|---|---|
{engines}

```yaml
listen_address: 0.0.0.0:9450
engine_interval: 5s
engines:
  - url: http://127.0.0.1:8000        # recognised by what it serves
    endpoint: chat                    # the service that users call
  - url: https://10.0.3.7:8443/metrics
    namespace: prod
    pod: llama-70b-0
    bearer_token_file: /var/run/secrets/engine-token
    ca_file: /etc/palegreen/engine-ca.crt
```

## A model size

`model_sizes` is a list of models that might be placed on the node; what room is left for each is published
(`palegreen_node_gpu_model_slots`). As a flag: `--model-size llama-70b=40GiBx4`.

| key | default | meaning |
|---|---|---|
{sizes}

```yaml
model_sizes:
  - {{name: llama-8b, memory: 20GiB}}
  - {{name: llama-70b, memory: 40GiB, gpus: 4}}
```

# The evaluator: `palegreen evaluate`

At least one tap is needed: `upstream`, `sink_address`, `otlp_grpc_address`, `tap_socket` or `file`
([taps.md](taps.md)). A change of a setting that has no mark starts the scorer again; the taps go on.

| key | flag | variable | default | meaning |
|---|---|---|---|---|
{evaluator}

Sections of the file, which have no flags:

**redaction** ([redaction.md](redaction.md))

| key | default | meaning |
|---|---|---|
{redaction}

A pattern of `redaction.patterns`:

| key | default | meaning |
|---|---|---|
{pattern}

**drift** ([drift.md](drift.md))

| key | default | meaning |
|---|---|---|
{drift}

**retrieval**: a list of indexes ([retrieval.md](retrieval.md)); it is read once at the start

| key | default | meaning |
|---|---|---|
{retrieval}

`http` of an index:

| key | default | meaning |
|---|---|---|
{search}

**judge** ([judge.md](judge.md))

| key | default | meaning |
|---|---|---|
{judge}

**checks**: settings by the name of the check ([checks.md](checks.md)); each takes `enabled: false`.

**canary** ([canaries.md](canaries.md))

| key | default | meaning |
|---|---|---|
{canary}

```yaml
upstream: http://127.0.0.1:8000
proxy_address: 0.0.0.0:8080
endpoint: chat
sample_rate: 0.2
session_interval: 1m
store: /var/lib/palegreen/samples.db
redaction:
  names_file: /etc/palegreen/names.txt
  patterns:
    - {{name: customer, pattern: 'C-\\d{{8}}'}}
checks:
  length: {{max_words: 800}}
  refusal: {{enabled: false}}
```

# OTLP

`otlp` is a section of the file of both daemons: what they publish is sent too ([opentelemetry.md](opentelemetry.md)).
It needs `pip install "palegreen[otel]"`.

| key | default | meaning |
|---|---|---|
{otlp}

```yaml
otlp:
  endpoint: http://otel-collector:4317
```

# TLS, users, client certificates

`--web.config.file` takes the web configuration of Prometheus' exporter-toolkit, as node_exporter and others do. It
and the certificates are read again when they change; turning TLS on or off needs a restart.

```yaml
tls_server_config:
  cert_file: server.crt
  key_file: server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: clients.crt
basic_auth_users:
  prometheus: $2y$10$...              # htpasswd -nBC 10 "" | tr -d ':'
```

Python's TLS cannot ask for a client certificate without verifying it, so `RequestClientCert` and
`RequireAnyClientCert` are refused with a line that says so; TLS below 1.2 is refused too.
"""


def render() -> str:
    """The whole page as Markdown."""
    return _PAGE.format(
        settings=_settings(NODE, NODE_FIXED),
        engines=_keys(EngineConfig),
        sizes=_keys(ModelSize),
        evaluator=_settings(EVALUATE, EVALUATE_FIXED),
        redaction=_keys(RedactionConfig),
        pattern=_keys(Pattern),
        retrieval=_keys(RetrievalConfig),
        search=_keys(HttpSearch),
        judge=_keys(JudgeConfig),
        canary=_keys(CanaryConfig),
        drift=_keys(DriftConfig),
        otlp=_keys(OtlpExportConfig),
    )


def _settings(options: Options[Any], fixed: tuple[str, ...]) -> str:
    rows = []
    for key, field in options.model.model_fields.items():
        if key in options.sections:
            continue
        mark = " \\*" if key in fixed else ""
        names = f"`{key}`{mark}", f"`{options.flag(key)}`", f"`{options.variable(key)}`"
        rows.append("| " + " | ".join((*names, _default(key, field), _meaning(field))) + " |")
    return "\n".join(rows)


def _keys(model: type[BaseModel]) -> str:
    return "\n".join(
        f"| `{key}` | {_default(key, field)} | {_meaning(field)} |" for key, field in model.model_fields.items()
    )


def _meaning(field: FieldInfo) -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return f"{field.description}" + (f": {', '.join(choices)}" if choices else "")


def _default(key: str, field: FieldInfo) -> str:
    value: Any = field.default
    if field.is_required():
        return "required"
    return "" if value in (None, "", []) or isinstance(value, BaseModel) else f"`{shown(key, value)}`"


if __name__ == "__main__":
    sys.stdout.write(render())
