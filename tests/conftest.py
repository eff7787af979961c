"""Options and fixtures of the whole suite."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from palegreen.demo.driver.build import BuildError

if TYPE_CHECKING:
    from support.gpus import Machine

sys.path.insert(0, str(Path(__file__).parent))  # tests import `support`; --import-mode=importlib adds no folder

settings.register_profile("suite", deadline=None, database=None, derandomize=True)
settings.load_profile("suite")

GOLDENS = Path(__file__).parent / "goldens"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="write what is compared instead of comparing it")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the golden of that name, byte for byte, or write it with --update-goldens."""

    def compare(name: str, text: str) -> None:
        path = GOLDENS / name
        if request.config.getoption("--update-goldens"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.read_text(encoding="utf-8") == text, f"{name} differs; see --update-goldens"

    return compare


@pytest.fixture(scope="session")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp().parent / "drivers"


@pytest.fixture
def machine(tmp_path: Path, drivers: Path) -> Callable[..., Machine]:
    def make(scenario: dict[str, Any], without: frozenset[str] = frozenset()) -> Machine:
        from support.gpus import Machine, library

        try:
            return Machine(tmp_path, library(drivers, without), scenario)
        except BuildError as failure:
            pytest.skip(f"the driver cannot be simulated: {failure}")

    return make
