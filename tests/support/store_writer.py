"""A process that writes batches to a store until it is killed: `python store_writer.py STORE FIRST SIZE`.

Writes the number of each batch once it is committed to standard output.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from palegreen.evaluators.store.store import Store
from support.samples import batch

if __name__ == "__main__":
    path, number, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    store = Store(path, max_age_seconds=1e9, max_bytes=1 << 30)
    while True:
        store.add(batch(size, session=str(number), response="word " * 300))
        if store.counts().lost:
            sys.exit("samples were lost")
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        number += 1
