"""Prometheus, promtool, Alertmanager and amtool for the demo and the tests, without root.

A tool on PATH wins. Else all four are fetched from Debian's archive, newest release first, through an apt
root of our own: the system's apt configuration (proxies, mirrors, keys) applies, its state is not touched.
They are unpacked into `$PALEGREEN_TOOLS_DIR`, else `./.tools` in a checkout, else the user's cache.

    python -m palegreen.demo.tools [NAME...]
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Under each name, what it may be called; Debian prefixes Alertmanager.
TOOLS = {
    "prometheus": ("prometheus",),
    "promtool": ("promtool",),
    "alertmanager": ("alertmanager", "prometheus-alertmanager"),
    "amtool": ("amtool",),
}
RELEASES = ("sid", "trixie", "bookworm")
# Older releases have promtool inside the prometheus package.
PACKAGES = (
    ("prometheus", "promtool", "prometheus-alertmanager"),
    ("prometheus", "prometheus-alertmanager"),
)
TIME_LIMIT = 300.0
REMEMBER_FAILURE = 600.0
FAILURE = "failure.json"
_NO_NETWORK = re.compile("(?i)could not connect|cannot initiate|unable to connect|resolv|timed out|took too long")
# Debian's build reads its default templates from a fixed place, which only root could fill. Our copy reads
# them from descriptor 9 instead, in as many bytes; the script beside it opens that and becomes the program.
_FIXED_PLACE = b"/usr/share/prometheus/alertmanager"
_LAUNCHER = """#!/bin/sh
here=$(dirname -- "$(readlink -f -- "$0")")
exec 9< "$here/../share/prometheus/alertmanager"
exec "$here/prometheus-alertmanager" "$@"
"""
_DEBIAN_SUITES = {"stable", "testing", "unstable", "sid", "bullseye", "bookworm", "trixie", "forky", "duke"}

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tool:
    """Where a tool is, or in one line why there is none."""

    name: str
    path: Path | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Mirror:
    """A copy of Debian's archive, as the system's own apt sources name it."""

    uri: str
    signed_by: str = ""


class _FetchError(Exception):
    """Why the tools cannot be had, in one line."""


def find(
    name: str,
    *,
    directory: Path | None = None,
    search_path: str | None = None,
    apt_etc: Path = Path("/etc/apt"),
    progress: Progress | None = None,
) -> Tool:
    """Find a tool of TOOLS, fetching it if need be; never raises for want of a tool or a network.

    Safe to call from several processes at once. A failure is remembered for ten minutes, so that ten tests
    do not wait for ten; running this module forgets it. `search_path` is looked through instead of PATH.
    """
    for program in TOOLS[name]:
        if found := shutil.which(program, path=search_path):
            return Tool(name, Path(found))
    directory = (directory or default_directory()).absolute()
    if path := _unpacked(directory, name):
        return Tool(name, path)
    absent = [p for p in ("apt-get", "dpkg") if not shutil.which(p, path=search_path)]
    if absent:
        return Tool(name, None, f"not on PATH, and without {' and '.join(absent)} it cannot be fetched")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _lock(directory / "lock"):
            if not _unpacked(directory, name):
                _fetch_unless_just_failed(directory, apt_etc, progress or (lambda _: None))
    except (_FetchError, OSError) as error:
        return Tool(name, None, f"not on PATH, and not fetched: {error}")
    return Tool(name, _unpacked(directory, name))


def default_directory() -> Path:
    """Where fetched tools are kept."""
    if chosen := os.environ.get("PALEGREEN_TOOLS_DIR"):
        return Path(chosen)
    if Path("pyproject.toml").is_file() and Path("demo", "tools.py").is_file():
        return Path(".tools")
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "palegreen" / "tools"


def debian_mirror(apt_etc: Path) -> Mirror | None:
    """The system's mirror of Debian's main archive, None if its sources name none."""
    found: list[Mirror] = []
    for path in [apt_etc / "sources.list", *sorted((apt_etc / "sources.list.d").glob("*"))]:
        if path.suffix in (".list", ".sources") and path.is_file():
            parse = _deb822 if path.suffix == ".sources" else _one_line
            found += parse(path.read_text(encoding="utf-8", errors="replace"))
    # A vendor may use Debian's suite names too; the archive itself lies under /debian nearly everywhere.
    found.sort(key=lambda mirror: not re.search(r"/debian(\.list)?/?$", mirror.uri))
    return found[0] if found else None


def _one_line(text: str) -> Iterator[Mirror]:
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s*)?(\S+)\s+(\S+)\s+([^#]*)", line)
        if match and _is_debian(match[2], [match[3]], match[4].split()):
            signed_by = re.search(r"signed-by=(\S+)", match[1] or "", re.IGNORECASE)
            yield Mirror(match[2], signed_by[1] if signed_by else "")


def _deb822(text: str) -> Iterator[Mirror]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields = {
            key.lower(): value.strip()
            for key, value in re.findall(r"^([\w-]+):((?:.*\n?)(?:[ \t].*\n?)*)", stanza, re.MULTILINE)
        }
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        for uri in fields.get("uris", "").split():
            if _is_debian(uri, fields.get("suites", "").split(), fields.get("components", "").split()):
                yield Mirror(uri, fields.get("signed-by", ""))


def _is_debian(uri: str, suites: Sequence[str], components: Sequence[str]) -> bool:
    return not uri.startswith("cdrom:") and "main" in components and not _DEBIAN_SUITES.isdisjoint(suites)


def _unpacked(directory: Path, name: str) -> Path | None:
    paths = (directory / "debian" / "usr" / "bin" / program for program in TOOLS[name])
    return next((path for path in paths if path.is_file()), None)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock between processes; whoever waits for it waits for somebody's bounded fetch."""
    deadline = time.monotonic() + TIME_LIMIT + 60
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise _FetchError("another process has been fetching for too long") from None
                time.sleep(0.1)
        yield


def _fetch_unless_just_failed(directory: Path, apt_etc: Path, progress: Progress) -> None:
    memory = directory / FAILURE
    with contextlib.suppress(OSError, ValueError, KeyError):
        failure = json.loads(memory.read_text(encoding="utf-8"))
        if 0 <= time.time() - failure["time"] < REMEMBER_FAILURE:
            raise _FetchError(f"{failure['reason']} (`python -m palegreen.demo.tools` tries again)")
    try:
        _fetch(directory, apt_etc, progress)
    except (_FetchError, OSError) as error:
        memory.write_text(json.dumps({"time": time.time(), "reason": str(error)}), encoding="utf-8")
        raise


def _fetch(directory: Path, apt_etc: Path, progress: Progress) -> None:
    """Fetch all four from the first release whose programs run here, and put them in place at once."""
    mirror = debian_mirror(apt_etc)
    if mirror is None:
        raise _FetchError("the system's apt sources name no Debian archive")
    deadline = time.monotonic() + TIME_LIMIT
    reasons = []
    for release in RELEASES:
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=directory) as scratch:
            root = Path(scratch)
            try:
                unpacked = _unpack(root, mirror, release, deadline, progress)
            except _FetchError as error:
                progress(f"Debian {release}: {error}")
                reasons.append(f"Debian {release}: {error}")
                if _NO_NETWORK.search(str(error)):
                    break
                continue
            shutil.rmtree(directory / "debian", ignore_errors=True)
            unpacked.rename(directory / "debian")
            return
    raise _FetchError("; ".join(reasons))


def _unpack(root: Path, mirror: Mirror, release: str, deadline: float, progress: Progress) -> Path:
    conf = _apt_root(root, mirror, release)
    progress(f"reading Debian {release}'s package list")
    _run(["apt-get", "-c", str(conf), "update"], root, deadline)
    for last, packages in ((False, PACKAGES[0]), (True, PACKAGES[1])):
        progress(f"downloading {', '.join(packages)} from Debian {release}")
        try:
            _run(["apt-get", "-c", str(conf), "download", *packages], root, deadline)
            break
        except _FetchError as error:
            if last or "Unable to locate package" not in str(error):
                raise
    target = root / "debian"
    for package in sorted(root.glob("*.deb")):
        progress(f"unpacking {package.name}")
        _run(["dpkg", "-x", str(package), str(target)], root, deadline)
    _relocate_alertmanager(target / "usr" / "bin")
    for name in TOOLS:
        path = _unpacked(root, name)
        if path is None:
            raise _FetchError(f"its packages hold no {name}")
        _run([str(path), "--version"], root, deadline)
    return target


def _relocate_alertmanager(folder: Path) -> None:
    program = folder / "prometheus-alertmanager"
    if program.is_file() and _FIXED_PLACE in (content := program.read_bytes()):
        program.write_bytes(content.replace(_FIXED_PLACE, b"/proc/self/fd/9".ljust(len(_FIXED_PLACE), b"/")))
        launcher = folder / "alertmanager"
        launcher.write_text(_LAUNCHER, encoding="utf-8")
        launcher.chmod(0o755)


def _apt_root(root: Path, mirror: Mirror, release: str) -> Path:
    """Write a configuration that is read after the system's, and keeps everything but places and hooks."""
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (root / folder).mkdir(parents=True)
    (root / "state/status").touch()
    fields = {"Types": "deb", "URIs": mirror.uri, "Suites": release, "Components": "main"}
    fields |= {"Targets": "Packages"} | ({"Signed-By": mirror.signed_by} if mirror.signed_by else {})
    sources = root / "debian.sources"
    sources.touch(mode=0o600)  # a mirror's URI may hold a password
    sources.write_text("".join(f"{key}: {value}\n" for key, value in fields.items()), encoding="utf-8")
    conf = root / "apt.conf"
    # Sandbox::User: apt's own user could not enter this folder, and it is only changed to by root.
    conf.write_text(
        f"""
        Dir::Etc::sourcelist "{sources}";
        Dir::Etc::sourceparts "/dev/null";
        Dir::Etc::preferences "/dev/null";
        Dir::Etc::preferencesparts "/dev/null";
        Dir::State "{root}/state";
        Dir::State::status "{root}/state/status";
        Dir::State::lists "{root}/state/lists";
        Dir::Cache "{root}/cache";
        APT::Default-Release "";
        APT::Update::Error-Mode "any";
        APT::Sandbox::User "root";
        Acquire::Retries "1";
        Acquire::http::Timeout "15";
        Acquire::https::Timeout "15";
        #clear APT::Update::Pre-Invoke;
        #clear APT::Update::Post-Invoke;
        #clear APT::Update::Post-Invoke-Success;
        """,
        encoding="utf-8",
    )
    return conf


def _run(command: list[str], cwd: Path, deadline: float) -> None:
    """Run to the end or to the deadline; anything but success is one line of what it said."""
    environment = os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # apt fetches in children of its own
            raise _FetchError(f"{Path(command[0]).name} took too long") from None
    if process.returncode != 0:
        lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
        said = next((line for line in lines if line.startswith("E: ")), (lines or ["nothing"])[-1])
        raise _FetchError(f"{Path(command[0]).name} exited with {process.returncode}: {said}")


def main(names: Sequence[str]) -> int:
    """Print where each tool is or why not; 0 if all were found."""
    unknown = [name for name in names if name not in TOOLS]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are: {', '.join(TOOLS)}", file=sys.stderr)
        return 2
    (default_directory() / FAILURE).unlink(missing_ok=True)
    absent = 0
    for name in names or TOOLS:
        tool = find(name, progress=lambda text: print(text, file=sys.stderr))
        print(f"{name}\t{tool.path or tool.reason}")
        absent += tool.path is None
    return 1 if absent else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
