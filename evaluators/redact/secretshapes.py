"""Shapes of keys and tokens that can be told by themselves, with where the shape is documented."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """`pattern` is RE2 for the whole secret; `source` is who says that it looks so."""

    name: str
    pattern: str
    source: str


SHAPES = (
    Shape(
        "aws-access-key-id",
        r"\b(?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA|AGPA|ANPA|A3T[A-Z0-9])[A-Z0-9]{16}\b",
        "AWS IAM: unique ids",
    ),
    Shape("google-api-key", r"\bAIza[\w-]{35}", "Google Cloud: API keys"),
    Shape("google-oauth-token", r"\bya29\.[\w-]{20,}", "Google: OAuth 2.0 access tokens"),
    Shape("google-client-secret", r"\bGOCSPX-[\w-]{20,}", "Google: OAuth 2.0 clients"),
    Shape("azure-client-secret", r"\b[\w~.]{3}\dQ~[\w~.-]{31,34}", "Microsoft Entra: client secrets; gitleaks"),
    Shape(
        "azure-storage-key", r"\b(?:AccountKey|SharedAccessKey)=[A-Za-z0-9+/]{40,}={0,2}", "Azure: connection strings"
    ),
    Shape("azure-sas-signature", r"[?&]sig=[A-Za-z0-9%+/]{40,}={0,2}", "Azure Storage: SAS"),
    Shape("github-token", r"\bgh[pousr]_[A-Za-z0-9]{30,255}", "GitHub: token formats"),
    Shape("github-fine-grained-token", r"\bgithub_pat_\w{40,255}", "GitHub: token formats"),
    Shape(
        "gitlab-token", r"\bgl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|oas|soat|ffct)-[\w.=-]{20,}", "GitLab: token prefixes"
    ),
    Shape("slack-token", r"\bxox[a-z](?:\.xox[a-z])?-[\w-]{10,}|\bxapp-\d-[\w-]{10,}", "Slack: token types"),
    Shape(
        "slack-webhook", r"\bhooks\.slack\.com/(?:services|workflows|triggers)/[\w/+-]{20,}", "Slack: incoming webhooks"
    ),
    Shape("discord-webhook", r"\bdiscord(?:app)?\.com/api/webhooks/\d+/[\w-]{40,}", "Discord: webhooks"),
    Shape("telegram-bot-token", r"\b\d{8,10}:AA[\w-]{32,33}", "Telegram: bots"),
    Shape(
        "stripe-key",
        r"\b(?:sk|rk|pk)_(?:live|test|prod)_[A-Za-z0-9]{10,}|\bwhsec_[A-Za-z0-9+/=]{20,}",
        "Stripe: API keys",
    ),
    # OpenAI (sk-, sk-proj-, sk-svcacct-), Anthropic (sk-ant-), OpenRouter (sk-or-), LiteLLM (sk-), DeepSeek (sk-).
    Shape(
        "openai-like-key",
        r"\bsk-(?:[a-z]+[0-9]*-)*[\w-]{0,200}[A-Za-z0-9]{16}[\w-]*",
        "OpenAI, Anthropic, OpenRouter: API keys",
    ),
    Shape("groq-key", r"\bgsk_[A-Za-z0-9]{40,}", "Groq: API keys"),
    Shape("xai-key", r"\bxai-[A-Za-z0-9]{60,}", "xAI: API keys"),
    Shape("nvidia-key", r"\bnvapi-[\w-]{40,}", "NVIDIA: API catalogue"),
    Shape("perplexity-key", r"\bpplx-[A-Za-z0-9]{40,}", "Perplexity: API keys"),
    Shape("replicate-token", r"\br8_[A-Za-z0-9]{30,}", "Replicate: API tokens"),
    Shape("huggingface-token", r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}", "Hugging Face: access tokens"),
    Shape("langsmith-key", r"\blsv2_(?:pt|sk)_[a-f0-9]{32}_[a-f0-9]{10}", "LangSmith: API keys"),
    Shape("npm-token", r"\bnpm_[A-Za-z0-9]{36}", "npm: access tokens"),
    Shape("pypi-token", r"\bpypi-[\w-]{50,}", "PyPI: API tokens"),
    Shape("docker-token", r"\bdckr_(?:pat|oat)_[\w-]{20,}", "Docker Hub: access tokens"),
    Shape("digitalocean-token", r"\bdo[oprt]_v1_[a-f0-9]{64}", "DigitalOcean: token prefixes"),
    Shape("databricks-token", r"\bdapi[a-f0-9]{32}(?:-\d)?", "Databricks: personal access tokens"),
    Shape("grafana-token", r"\bgl(?:c|sa)_[\w+/=]{30,}", "Grafana: service account and cloud tokens"),
    Shape("vault-token", r"\bhv[sbr]\.[\w-]{24,}", "HashiCorp Vault: token prefixes"),
    Shape("terraform-token", r"\b[A-Za-z0-9]{14}\.atlasv1\.[\w-]{60,}", "HashiCorp Terraform: API tokens"),
    Shape("atlassian-token", r"\bATATT3[\w=-]{50,}", "Atlassian: API tokens"),
    Shape("linear-key", r"\blin_(?:api|oauth)_[A-Za-z0-9]{32,}", "Linear: API keys"),
    Shape("notion-token", r"\bntn_[A-Za-z0-9]{40,}|\bsecret_[A-Za-z0-9]{43}\b", "Notion: integration tokens"),
    Shape("postman-key", r"\bPMAK-[a-f0-9]{24}-[a-f0-9]{34}", "Postman: API keys"),
    Shape("sendgrid-key", r"\bSG\.[\w-]{16,32}\.[\w-]{16,64}", "SendGrid: API keys"),
    Shape("mailgun-key", r"\bkey-[a-f0-9]{32}\b", "Mailgun: API keys"),
    Shape("mailchimp-key", r"\b[a-f0-9]{32}-us\d{1,2}\b", "Mailchimp: API keys"),
    Shape("twilio-key", r"\bSK[a-f0-9]{32}\b", "Twilio: API keys"),
    Shape("shopify-token", r"\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}", "Shopify: access tokens"),
    Shape("square-token", r"\b(?:EAAA[\w-]{60}|sq0[a-z]{3}-[\w-]{22,43})", "Square: access tokens"),
    Shape("new-relic-key", r"\bNRAK-[A-Z0-9]{27}", "New Relic: API keys"),
    Shape("age-key", r"\bAGE-SECRET-KEY-1[A-Z0-9]{58}", "age: file encryption"),
    Shape("jwt", r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]*)?", "RFC 7519"),
    Shape("jwe", r"\beyJ[\w-]{8,}\.[\w-]*\.[\w-]{8,}\.[\w-]{8,}\.[\w-]{16,}", "RFC 7516"),
    # With literal \n between the lines where it stands in a source; without an end where the text was cut.
    Shape(
        "private-key",
        r"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s\\:,.()]*"
        r"(?:-----END [A-Z0-9 ]{0,40}-----)?",
        "RFC 7468, RFC 4880, OpenSSH",
    ),
    Shape("putty-key", r"PuTTY-User-Key-File-\d[^\x00]{0,400}Private-Lines: \d+\s[A-Za-z0-9+/=\s]*", "PuTTY: PPK"),
)
