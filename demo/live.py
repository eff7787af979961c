"""The live summary: one line a second made of what the daemon exposes, as any scraper would see it."""

from __future__ import annotations

import http.client
import time
import urllib.request
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[str, list[tuple[dict[str, str], float]]]


def scrape(url: str, timeout: float = 5.0) -> Samples:
    """Samples of an exposition by name. Raises OSError when it cannot be had."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            text = response.read().decode()
    except http.client.HTTPException as cut:
        raise OSError(f"cut short: {type(cut).__name__}") from None
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return samples


def total(samples: Samples, name: str, **labels: str) -> float:
    """Sum of the samples of that name that have these labels."""
    return sum(value for given, value in samples.get(name, ()) if labels.items() <= given.items())


_WINDOW = 10.0  # seconds over which the rate is taken


@dataclass(slots=True)
class Live:
    """Turns successive scrapes of `url` into summary lines."""

    url: str
    clock: Callable[[], float] = time.monotonic
    _seen: deque[tuple[float, float]] = field(default_factory=deque)

    def line(self, samples: Samples | None = None) -> str:
        """One summary line of what is scraped, or of `samples`; or why there is none."""
        try:
            samples = scrape(self.url) if samples is None else samples
        except OSError as failure:
            return f"no answer from {self.url}: {failure}"
        return " | ".join(part for part in (self._engine(samples), _gpu(samples), _sources(samples)) if part)

    def _engine(self, samples: Samples) -> str:
        tokens = samples.get("palegreen_engine_generation_tokens_total")
        if not tokens:
            return "engine: no metrics"
        generated = sum(value for _, value in tokens)
        labels = tokens[0][0]
        name = labels["model"] or labels["engine"]
        waiting = total(samples, "palegreen_engine_requests_waiting")
        running = total(samples, "palegreen_engine_requests_running")
        rate = self._rate(generated)
        return f"{name}: {rate:5.1f} tok/s, {generated:.0f} tokens, {running:.0f} running, {waiting:.0f} waiting"

    def _rate(self, generated: float) -> float:
        now = self.clock()
        if self._seen and generated < self._seen[-1][1]:
            self._seen.clear()  # the engine was restarted
        self._seen.append((now, generated))
        while self._seen[0][0] < now - _WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        return (generated - before) / (now - since) if now > since else 0.0


def _gpu(samples: Samples) -> str:
    used = total(samples, "palegreen_gpu_memory_used_bytes")
    memory = total(samples, "palegreen_gpu_memory_total_bytes")
    if not memory:
        return ""
    busy = samples.get("palegreen_gpu_utilization_ratio", [])
    share = f"{100 * sum(value for _, value in busy) / len(busy):3.0f}%, " if busy else ""
    watts = total(samples, "palegreen_gpu_power_watts")
    simulated = any(labels["simulated"] == "true" for labels, _ in samples.get("palegreen_gpu_info", []))
    name = f"{'simulated ' if simulated else ''}GPU"
    return f"{name}: {share}{used / 2**30:.0f}/{memory / 2**30:.0f} GiB, {watts:.0f} W"


def _sources(samples: Samples) -> str:
    health = samples.get("palegreen_source_up", [])
    down = [f"{labels['source']} {labels['target']}".strip() for labels, value in health if not value]
    return f"sources {len(health) - len(down)}/{len(health)} up" + (f" (down: {', '.join(down)})" if down else "")
