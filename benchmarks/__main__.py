"""`python -m benchmarks [NAME...]`: run them, print figures; exit code 1 when a bound was missed."""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks.harness import Settings, workplace

NAMES = (
    "dispatch",
    "jsonl",
    "memory",
    "state",
    "resume",
    "overlap",
    "start",
    "durability",
    "index",
    "s3_read",
    "parquet",
    "images",
    "reduce",
    "reduce_s3",
    "scale",
    "ssh",
    "clusters",
    "embed",
)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", metavar="NAME", help=f"which ones: {', '.join(NAMES)}; all when left out")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each contender (default 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="a fraction of the data, to try a benchmark out")
    parser.add_argument("--folder", help="where temporary data goes, on a disk (default /var/tmp)")
    parser.add_argument("--json", action="store_true", help="a JSON object per figure")
    asked = parser.parse_args()
    unknown = sorted(set(asked.name) - set(NAMES))
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    met = True
    for name in asked.name or NAMES:
        with workplace(asked.folder) as folder:
            settings = Settings(folder=folder, repeats=asked.repeats, scale=asked.scale)
            for figure in importlib.import_module(f"benchmarks.{name}").run(settings):
                print(figure.json() if asked.json else figure.line(), flush=True)
                met = met and figure.met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
