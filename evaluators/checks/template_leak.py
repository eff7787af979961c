"""Tokens of a chat template in the answer: a wrong template, a stop token that was not set, a parser that gave up.

Fails: one special token of a known family of models (`<|im_start|>`, `[INST]`, `<end_of_turn>`, `<tool_call>`), or a
turn that the model wrote for the user (`### Human:`, `User:` and `Assistant:` in turn, or a line `Human:` after the
answer where no line has another label, as in a dialogue). What the model was given
may be quoted, and so may code. Redaction's placeholders, such as [EMAIL], are none of these. Skipped: no text.
"""

from __future__ import annotations

import re

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.view import View

_TOKEN = re.compile(
    r"<\|(?:[a-z][a-z0-9_]{1,30}(?:\|>|>\|))"  # ChatML, Llama 3, Phi, gpt-oss: <|im_end|>, <|eot_id|>, <|channel|>
    r"|<\uff5c[^\uff5c\n]{1,40}\uff5c>"  # DeepSeek
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|ASSISTANT)\]|<</?SYS>>"  # Llama 2, Mistral
    r"|</?(?:start_of_turn|end_of_turn|tool_call|tool_response|function_call)>|<function=\w"  # Gemma, Qwen, Hermes
    r"|<(?:bos|eos|pad|unk|unused\d{1,4})>|\[(?:PAD|CLS|SEP|UNK|MASK)\]|<\|?endoftext\|?>"
    r"|\A\s*<s>|</s>\s*\Z"  # elsewhere they strike text out
    r"|^\#{2,3} ?(?:Human|Assistant|User|System|Instruction|Response): *"
    r"|^(?:Human|User): [^\n]*\n+(?:Assistant|AI|Bot): ",
    re.MULTILINE,
)
_HINTS = ("<", "[", "##", "Human:", "User:")  # no token without one of them; looked for first, as this is fast
_LABEL = re.compile(r"^(\w[^:\n]{0,30}):(?= |$)", re.MULTILINE)
_HUMAN = "\nHuman:"
_CODE = re.compile(r"`[^`\n]*`")


def check(view: View) -> Outcome | None:
    """Whether the answer is free of the template's tokens."""
    if not view.text:
        return None
    if not any(hint in view.text for hint in _HINTS) or not (_TOKEN.search(view.text) or _HUMAN in view.text):
        return Outcome(True)
    # The prose is without placeholders and fenced code; the tokens in brackets look like placeholders.
    text = _CODE.sub(" ", view.unfenced)
    leaked = {found[0].strip() for found in _TOKEN.finditer(text)}
    if _HUMAN in text and set(_LABEL.findall(text)) == {"Human"}:
        leaked.add("Human:")
    leaked = {token for token in leaked if token not in view.given}
    return Outcome(not leaked, None, f"{len(leaked)} kinds of template tokens" if leaked else "")
