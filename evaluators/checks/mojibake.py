"""Text that was decoded wrongly: replacement characters, UTF-8 read as Latin-1 (`Ã©`), control characters, lone
surrogates, private-use characters, raw marks of a tokenizer (`Ġthe`).

Fails: one replacement character (but for the very end of a cut answer, where half a character is usual), one control
character or surrogate, two doubly encoded characters, three of private use, three tokenizer marks. Kinds that occur
in what the model was given are passed over: it may quote them. Skipped: empty answers.
"""

from __future__ import annotations

import re

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.truncated import LIMITED
from palegreen.evaluators.checks.view import View

_CONTROL = "\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f"
_PRIVATE = "\ue000-\uf8ff\U000f0000-\U0010ffff"
# What bytes 0x80-0xBF look like, read as Latin-1 or Windows-1252.
_HIGH = "\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122"
_DOUBLE = rf"[ÃÂ][{_HIGH}]|â€[{_HIGH}]|ðŸ[{_HIGH}]|(?:[ÐÑØÙ][{_HIGH}]){{3,}}|(?:[ãäåæçèé][{_HIGH}][{_HIGH}]){{2,}}"
# Kind, what it looks like, and how many are a fault.
_KINDS = (
    ("replacement character", re.compile("\ufffd"), 1),
    ("control character", re.compile(f"[{_CONTROL}]"), 1),
    ("lone surrogate", re.compile("[\ud800-\udfff]"), 1),
    ("doubly encoded character", re.compile(_DOUBLE), 2),
    ("private-use character", re.compile(f"[{_PRIVATE}]"), 3),
    ("mark of a tokenizer", re.compile(r"[ĠĊ\u2581](?=[^\W\d_]{2})|<0x[0-9A-F]{2}>"), 3),
)
_SUSPECT = re.compile(
    f"[{_CONTROL}{_PRIVATE}\ud800-\udfff\ufffdĠĊ\u2581]|<0x|[ÃÂâðÐÑØÙãäåæçèé][{_HIGH}]"  # whatever a kind begins with
)


def check(view: View) -> Outcome | None:
    """Whether all characters are ones that somebody wrote."""
    text = view.text
    if not text:
        return None
    if not _SUSPECT.search(text):
        return Outcome(True)
    if text[-1] == "\ufffd" and (view.sample.finish_reason in LIMITED or view.sample.ended != "complete"):
        text = text.rstrip("\ufffd")
    for kind, pattern, limit in _KINDS:
        found = len(pattern.findall(text))
        if found >= limit and not pattern.search(view.given):
            return Outcome(False, None, f"{found} x {kind}")
    return Outcome(True)
