"""Records what LiteLLM's GenericAPILogger posts, in each of its formats.

In an environment of its own:
    pip install litellm mcp
    python record_litellm.py
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
from importlib.metadata import version
from typing import Any

import litellm
import openai
from litellm.integrations.generic_api.generic_api_callback import GenericAPILogger
from recording import EXCHANGES, HERE, sink, upstream

METADATA = {"user_api_key_team_alias": "search", "user_api_key_team_id": "team-1", "session_id": "s-1"}


async def record(log_format: Any) -> list[dict[str, Any]]:
    posts: list[dict[str, Any]] = []
    logger = GenericAPILogger(endpoint=sink(posts).url + "/litellm", log_format=log_format, flush_interval=3600)
    litellm.callbacks = [logger]
    for name, exchange in EXCHANGES.items():
        request = exchange["request"] | {"model": f"openai/{exchange['request']['model']}"}
        with contextlib.suppress(openai.APIError):
            answer = await litellm.acompletion(
                **request, api_base=upstream(name).url + "/v1", api_key="none", max_retries=0, num_retries=0,
                metadata=METADATA | {"tags": ["recorded", name]},
            )  # fmt: skip
            if "stream" in exchange:
                async for _ in answer:
                    pass
    while len(logger.log_queue) < len(EXCHANGES):  # LiteLLM logs in tasks of its own
        await asyncio.sleep(0.1)
    await logger.async_send_batch()
    for post in posts:  # tracebacks hold paths of the machine
        body = base64.b64decode(post["body"]).decode()
        post["body"] = body.replace(sys.prefix, "/venv").replace(str(HERE), "/recorder")
    return posts


def main() -> None:
    (HERE / "litellm").mkdir(exist_ok=True)
    for log_format in ("json_array", "ndjson", "single"):
        posts = asyncio.run(record(log_format))
        text = json.dumps({"sender": {"litellm": version("litellm")}, "posts": posts}, indent=1, ensure_ascii=False)
        (HERE / "litellm" / f"{log_format}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
