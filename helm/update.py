"""What of the chart is generated: copies of rules, routes and dashboards, and the table of values in its README.

python helm/update.py            # write (make chart)
python helm/update.py --check    # exit 1 and name what differs
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
CHART = ROOT / "helm/palegreen"
FILES = CHART / "files"
RULES, ROUTES = ROOT / "alerts/generated/rules.yaml", ROOT / "alerts/generated/alertmanagerconfig.yaml"
DASHBOARDS = ROOT / "dashboards/generated"
BEGIN, END = "<!-- values: make chart -->\n", "<!-- end of values -->\n"
_KEY = re.compile(r"( *)([A-Za-z][A-Za-z0-9]*):")


def wanted() -> dict[Path, bytes]:
    """Content of each generated file. Raises OSError where a source is missing."""
    found = {FILES / source.name: source.read_bytes() for source in (RULES, ROUTES)}
    found |= {FILES / "dashboards" / source.name: source.read_bytes() for source in sorted(DASHBOARDS.iterdir())}
    return found | {CHART / "README.md": readme().encode()}


def left_over(files: Mapping[Path, bytes]) -> list[Path]:
    """Copies whose source is gone."""
    return [path for path in sorted(FILES.rglob("*")) if path.is_file() and path not in files]


def readme() -> str:
    """The README with its table as `values.yaml` has it now."""
    text = (CHART / "README.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


def table() -> str:
    """A row for each documented value."""
    rows = ["| value | default | meaning |", "|---|---|---|"]
    rows += [f"| `{path}` | `{default}` | {about} |" for path, default, about in values()]
    return "\n".join(rows) + "\n"


def values() -> Iterator[tuple[str, str, str]]:
    """Path, default and meaning of each value whose line follows a comment `# -- MEANING`."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    defaults = yaml.safe_load(text)
    path: list[tuple[int, str]] = []
    about = ""
    for line in text.splitlines():
        if line.strip().startswith("# -- "):
            about = line.strip().removeprefix("# -- ")
        elif match := _KEY.match(line):
            path = [*(step for step in path if step[0] < len(match[1])), (len(match[1]), match[2])]
            if about:
                keys = [key for _, key in path]
                yield ".".join(keys), _default(defaults, keys), about
            about = ""


def _default(defaults: Any, keys: list[str]) -> str:
    for key in keys:
        defaults = defaults[key]
    return json.dumps(defaults)


def main(arguments: list[str]) -> int:
    """Write, or compare with `--check`."""
    try:
        files = wanted()
    except OSError as missing:
        sys.stderr.write(f"{missing.filename}: {missing.strerror}; build alerts and dashboards first\n")
        return 2
    if "--check" in arguments:
        differing = [path for path, content in files.items() if not path.exists() or path.read_bytes() != content]
        for path in [*differing, *left_over(files)]:
            sys.stdout.write(f"{path.relative_to(ROOT)}: not as generated; make chart, then commit\n")
        return 1 if differing or left_over(files) else 0
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for path in left_over(files):
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
