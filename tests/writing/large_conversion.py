"""Convert a checkpoint by a mapping in a process whose address space is limited; print what its arrays took.

``python large_conversion.py SOURCE MAPPING OUT LIMIT_BYTES``; the last line is JSON: forecast and peak in bytes.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tracemalloc
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # each of its threads would reserve address space

import numpy as np

from weightkit.verbs.convert import write_conversion
from weightkit.verbs.plan_conversion import plan_conversion


def main() -> None:
    """Plan, limit, convert, tell."""
    source, mapping, out, limit = sys.argv[1:]
    conversion = plan_conversion(source, map=mapping)
    np.zeros(1)
    resource.setrlimit(resource.RLIMIT_AS, (int(limit), int(limit)))
    tracemalloc.start(1)
    before = tracemalloc.get_traced_memory()[0]
    report = write_conversion(conversion, Path(out))
    peak = tracemalloc.get_traced_memory()[1] - before
    sys.stdout.write(json.dumps({"forecast": report.facts["peak_bytes"], "peak": peak, "class": report.facts["class"]}))


if __name__ == "__main__":
    main()
