"""CPU time of redaction: ordinary samples, and hostile texts of two sizes, whose times must be in proportion."""

from __future__ import annotations

import time
import timeit

from palegreen.evaluators.config import RedactionConfig
from palegreen.evaluators.redact.redactor import Redactor
from palegreen.evaluators.sample import Sample

ENGLISH = "The deployment finished at 10:32 and the service answered within 120 ms; see the notes for version 2.3.1. "
GERMAN = "Der Dienst läuft seit 2024-01-15 stabil \u2013 die Antwortzeit liegt bei 3,5 Sekunden und „alles“ ist gut. "
HOSTILE = (
    *("a", "@", "a@", "a@b.", "a@b.co ", "4", "4.", "4 ", "4111 1111 1111 1111 ", "12 34 56 78 x ", "415-555-2671 "),
    *("+1 ", "+49 30 1234567 ", "::", "f:", "10.0.0.1 ", "2001:db8::1 ", "-----BEGIN PRIVATE KEY-----", "eyJ", "sk-a-"),
    *("api_key=", "api_key=abc123def456ghi7 ", "http://a:b", "bearer ", "password: ", '"a"@', "[EMAIL]", "```", '"\\'),
    *("\uff14", "4\u200b", "tel 123 ", "Bob "),
)


def sample(text: str) -> Sample:
    """As the proxy gives them, with every id that it has."""
    return Sample(
        text,
        id="chatcmpl-9f8e7d6c5b4a39281706f5e4d3c2b1a0",
        model="llama-3-8b",
        endpoint="chat",
        route="/v1/chat/completions",
        replica="ns/pod-0",
        session="9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d",
        finish_reason="stop",
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        tap="proxy",
        messages=[{"role": "system", "content": "You are helpful."}, {"role": "user", "content": text}],
    )


def main() -> None:
    """Print both tables."""
    redactor = Redactor(RedactionConfig(names=["Anna Schmidt", "Bob"]))
    private = ENGLISH * 2 + "Mail john.doe@example.com or 415-555-2671. "
    for what, text in (("English", ENGLISH * 3), ("German", GERMAN * 3), ("with two to redact", private)):
        held = sample(text[:300])
        best = (
            min(timeit.repeat(lambda held=held: redactor.sample(held), timer=time.process_time, number=500, repeat=7))
            / 500
        )
        print(f"{what:<20}{best * 1e6:8.1f} us a sample")
    for unit in HOSTILE:
        small, large = unit * (250_000 // len(unit)), unit * (1_000_000 // len(unit))
        start = time.process_time()
        redactor.text(small)
        middle = time.process_time()
        redactor.text(large)
        end = time.process_time()
        ratio = (end - middle) / (middle - start)
        print(f"{unit!r:<35}{end - middle:8.3f} s a megabyte, {ratio:4.1f} times a quarter of it")


if __name__ == "__main__":
    main()
