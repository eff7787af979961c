"""A replay as one HTML page: no script, nothing fetched; light and dark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape

from palegreen.evaluators.drift.backtest import Raised, Replay
from palegreen.evaluators.drift.plot import strips
from palegreen.evaluators.drift.render import balance, facts, silence
from palegreen.evaluators.sample import Sample

_EXCERPT = 600
_STYLE = """
:root{color-scheme:light dark;--ink:#1c2420;--soft:#5b665f;--ground:#fff;--card:#f4f7f5;--rule:#d9e0dc;
--response:#1d5fbf;--prompt:#7a4fb5;--check:#a35a00;--pages:#c2261c;--informs:#7a4fb5;--span:#c2261c1a}
@media(prefers-color-scheme:dark){:root{--ink:#e6ece8;--soft:#9aa8a0;--ground:#121614;--card:#1b211e;--rule:#323b36;
--response:#7fb2ff;--prompt:#c5a3f5;--check:#f2b05e;--pages:#ff7a6e;--informs:#c5a3f5;--span:#ff7a6e26}}
body{margin:2rem auto;max-width:62rem;padding:0 1rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--ground)}
h1{font-size:1.5rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}p{margin:.3rem 0}.soft{color:var(--soft)}
.tiles{display:flex;flex-wrap:wrap;gap:.8rem;margin:1.2rem 0}
.tile{background:var(--card);border-radius:8px;padding:.6rem 1rem}
.tile b{display:block;font-size:1.5rem;font-variant-numeric:tabular-nums}
svg{width:100%;height:auto;display:block}polyline{fill:none;stroke-width:1.4}polyline.response{stroke:var(--response)}
polyline.prompt{stroke:var(--prompt)}polyline.check{stroke:var(--check)}.grid{stroke:var(--rule)}
.threshold{stroke:var(--soft);stroke-dasharray:5 4}.span{fill:var(--span)}line.pages{stroke:var(--pages)}
line.informs{stroke:var(--informs)}path.pages{fill:var(--pages)}
path.informs{fill:var(--ground);stroke:var(--informs);stroke-width:1.5}
text{font-size:12px;fill:var(--soft)}text.title{font-size:13px;font-weight:600;fill:var(--ink)}
section{border-left:4px solid var(--pages);background:var(--card);border-radius:0 8px 8px 0;
padding:.6rem 1rem;margin:.8rem 0}
section.informs{border-color:var(--informs)}section h3{font-size:1rem;margin:0 0 .3rem}
dl{display:grid;grid-template-columns:6rem 1fr;margin:0}dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
details{margin:.4rem 0}summary{cursor:pointer}
blockquote{margin:.3rem 0 .3rem 1rem;white-space:pre-wrap;overflow-wrap:anywhere}
.bars{display:grid;grid-template-columns:max-content 1fr;gap:.3rem .8rem;align-items:center}
.bar{background:var(--check);height:.9rem;border-radius:0 3px 3px 0;min-width:2px}
"""


def page(of: Replay) -> str:
    """The whole document. Texts are the redacted ones."""
    return "".join(_parts(of))


def _parts(of: Replay) -> Iterator[str]:
    baseline = escape(of.baseline.id)
    yield (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>Backtest against {baseline}</title><style>{_STYLE}</style><h1>Backtest against {baseline}</h1>"
    )
    made = datetime.fromtimestamp(of.baseline.created, UTC).strftime("%Y-%m-%d")
    embedder = of.baseline.embedder.name if of.baseline.embedder is not None else "none"
    yield f"<p class=soft>A baseline of {of.baseline.samples} samples, made on {made}, embedder {escape(embedder)}.</p>"
    pages = sum(each.alarm.pages for each in of.alarms)
    tiles = (
        (str(pages), "alarms that page"),
        (str(len(of.alarms) - pages), "alarms that inform"),
        (f"{of.expected:.2g}", "false pages expected"),
        (str(of.watched), f"of {of.total} samples compared"),
    )
    yield "<div class=tiles>"
    for value, about in tiles:
        yield f"<div class=tile><b>{value}</b>{about}</div>"
    yield "</div>"
    yield f"<h2>Ratio to the threshold</h2>{strips(of)}"
    yield (
        "<p class=soft>Above the dashed line at 1 is an alarm. Shaded: from the estimated beginning of the change to "
        "the release. The scale is logarithmic; of several replicas the highest is drawn.</p>"
    )
    yield "<h2>Alarms</h2>" + ("" if of.alarms else f"<p>{silence(of).capitalize()}.</p>")
    for each in of.alarms:
        yield from _alarm(of, each)
    carried = Counter(check for each in of.alarms for check in each.alarm.checks)
    if carried:
        yield "<h2>Checks that carried them</h2><div class=bars>"
        most = max(carried.values())
        for check, times in carried.most_common():
            bar = f"<div class=bar style='width:{100 * times / most:.0f}%' title='{times} alarms'></div>"
            yield f"<span>{escape(check)} ({times})</span>{bar}"
        yield "</div>"
    yield "<h2>False alarms</h2>" + "".join(f"<p>{escape(line)}</p>" for line in balance(of))
    yield "".join(f"<p>Note: {escape(remark)}</p>" for remark in of.remarks) + "</html>\n"


def _alarm(of: Replay, raised: Raised) -> Iterator[str]:
    alarm = raised.alarm
    kind = "pages" if alarm.pages else "informs"
    named = f" ({escape(alarm.id)})" if alarm.id else ""
    yield f"<section class={kind}><h3>{alarm.channel}, {kind}: sample {alarm.sample}{named}</h3><dl>"
    for name, value in facts(raised):
        yield f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
    yield "</dl>"
    for name in alarm.moved:
        if (sample := of.texts.get(name)) is not None:
            yield _text(name, sample)
    yield "</section>"


def _text(name: str, sample: Sample) -> str:
    prompt, response = (escape(_excerpt(text)) for text in (sample.prompt, sample.response))
    return (
        f"<details><summary>{escape(name)}</summary><p class=soft>prompt</p><blockquote>{prompt}</blockquote>"
        f"<p class=soft>response</p><blockquote>{response}</blockquote></details>"
    )


def _excerpt(text: str) -> str:
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + " ..."
