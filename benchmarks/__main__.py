"""``python -m benchmarks [PART...]``: print tables of how fast the parts are."""

import importlib
import sys

from benchmarks.measure import machine

PARTS = (
    "resampling",
    "raw",
    "encoding",
    "attribution",
    "training",
    "pretraining",
    "whole_run",
    "tree",
    "cohorts",
    "quality",
)
ON_REQUEST = ("statistics", "people", "planted")  # take long, and say nothing of speed


def main() -> None:
    """Run the parts named on the command line, or all."""
    unknown = set(sys.argv[1:]) - {*PARTS, *ON_REQUEST}
    if unknown:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join((*PARTS, *ON_REQUEST))}")
    print(machine())
    for part in sys.argv[1:] or PARTS:
        importlib.import_module(f"benchmarks.{part}").run()


if __name__ == "__main__":
    main()
