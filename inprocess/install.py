"""Puts the `.pth` file into this Python's site-packages, or takes it out: `python -m palegreen.inprocess.install`.

With it, each Python process that has PALEGREEN_ALLOCATOR_DIR set starts the allocator probe when it imports PyTorch.
"""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path

NAME = "palegreen-allocator-probe.pth"
# site runs a line that begins with `import` at each start of Python; whatever fails in it must not be heard.
LINE = (
    'import os; exec(\'try:\\n if os.environ.get("PALEGREEN_ALLOCATOR_DIR"): '
    "from palegreen.inprocess.onimport import watch; watch()\\nexcept Exception: pass')\n"
)


def main(arguments: list[str] | None = None) -> None:
    """Install or, with --uninstall, remove; says what it did."""
    parser = argparse.ArgumentParser(prog="python -m palegreen.inprocess.install", description=__doc__)
    parser.add_argument("--uninstall", action="store_true", help="take the file out again")
    parser.add_argument("--directory", type=Path, default=Path(sysconfig.get_path("purelib")), help="site-packages")
    given = parser.parse_args(arguments)
    path: Path = given.directory / NAME
    try:
        if given.uninstall:
            path.unlink(missing_ok=True)
            print(f"removed {path}")
        else:
            path.write_text(LINE, encoding="utf-8")
            print(f"wrote {path}")
    except OSError as failure:
        parser.exit(1, f"{path}: {failure.strerror}\n")


if __name__ == "__main__":
    main()
