"""`python -m palegreen.demo.driver`: build the library and compile scenarios for it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from palegreen.demo.driver.build import OLD_DRIVER, BuildError, build
from palegreen.demo.driver.scenario import ENVIRONMENT_VARIABLE, ScenarioError, load


def main() -> int:
    """Run one command; print the path of what it made."""
    parser = argparse.ArgumentParser(prog="python -m palegreen.demo.driver", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    builder = commands.add_parser("build", help="build libnvidia-ml.so.1")
    builder.add_argument("--out", type=Path, required=True, metavar="DIR", help="for LD_LIBRARY_PATH")
    builder.add_argument("--old", action="store_true", help="as of a driver that lacks newer functions")
    compiler = commands.add_parser("compile", help="compile a scenario")
    compiler.add_argument("scenario", type=Path, metavar="SCENARIO.yaml")
    compiler.add_argument("--out", type=Path, required=True, metavar="FILE", help=f"for {ENVIRONMENT_VARIABLE}")
    arguments = parser.parse_args()
    try:
        if arguments.command == "build":
            print(build(arguments.out, without=OLD_DRIVER if arguments.old else ()))
        else:
            load(arguments.scenario).write(arguments.out)
            print(arguments.out)
    except (BuildError, ScenarioError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
