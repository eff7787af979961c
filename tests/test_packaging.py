"""The distribution: what it lists is what there is, and the wheel works where nothing else is installed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TOP_LEVEL = {name.split(".")[1] for name in PROJECT["tool"]["setuptools"]["packages"]}


def test_the_packages_list_equals_the_folders() -> None:
    folders = {
        ".".join(("palegreen", *path.parent.relative_to(ROOT).parts))
        for top in TOP_LEVEL
        for path in (ROOT / top).rglob("__init__.py")
    }
    unlisted = {
        path.parent.name
        for path in ROOT.glob("*/__init__.py")
        if path.parent.name not in TOP_LEVEL | {"tests", "benchmarks"}
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == folders
    assert not unlisted


def test_each_package_is_mapped_to_its_folder() -> None:
    mapped = PROJECT["tool"]["setuptools"]["package-dir"]
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert mapped == {name: name.removeprefix("palegreen.").replace(".", "/") for name in listed}


def test_no_file_of_code_is_longer_than_400_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for top in TOP_LEVEL
        for path in (ROOT / top).rglob("*.[pc]*")
        if path.suffix in (".py", ".c") and (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_runs_in_an_environment_with_nothing_but_its_requirements(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, check=False, cwd=tmp_path)
    if done.returncode and "No matching distribution" in done.stderr + done.stdout:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr

    palegreen = str(tmp_path / "env" / "bin" / "palegreen")
    shown = subprocess.run(
        [palegreen, "node", "--once", "--no-nvml"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert shown.returncode == 0, shown.stderr
    assert "palegreen_build_info{" in shown.stdout

    checked = subprocess.run([palegreen, "check", "--json"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert checked.returncode == 1
    assert '"check": "driver"' in checked.stdout

    names = subprocess.run(
        [str(python), "-c", "import os, sysconfig; print(os.listdir(sysconfig.get_path('purelib')))"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert not TOP_LEVEL & set(eval(names.stdout)), "a generic name landed in site-packages"
