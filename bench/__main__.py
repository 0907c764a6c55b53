"""Run the benchmarks: ``python -m bench [NAME …] [--quick] [--markdown FILE]``.

Each module beside this one that has ``run(quick: bool) -> list[Result]`` is a benchmark.
"""

import argparse
import os
from importlib import import_module
from pathlib import Path

from bench.report import Result, table

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> None:
    here = Path(__file__).parent
    names = sorted(p.stem for p in here.glob("[a-z]*.py") if p.stem != "report")
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="a short run that shows it works")
    parser.add_argument("--markdown", type=Path, help="write the table to this file as well")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    results: list[Result] = []
    for name in options.names or names:
        print(f"# {name}", flush=True)
        found = import_module(f"bench.{name}").run(options.quick)
        print(table(found), flush=True)
        results += found
    if options.markdown:
        options.markdown.write_text(table(results) + "\n")


if __name__ == "__main__":
    main()
