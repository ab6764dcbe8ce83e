"""`make bench`: every benchmark of speed, one after the other; each prints its table of ratios."""

from __future__ import annotations

import runpy
from pathlib import Path

PEERS_APART = {"trials", "time_to_quality", "vllm_adapters"}
"""Need an environment of their own; run them by hand."""


def main() -> None:
    """Run each module of this folder that needs nothing but the development install."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if not path.stem.startswith("_") and path.stem not in PEERS_APART:
            print(f"\n== {path.stem}", flush=True)
            runpy.run_module(f"benchmarks.speed.{path.stem}", run_name="__main__")


if __name__ == "__main__":
    main()
