"""Measure: ``python jobs/bench.py NAME [key=value]...``, or all measurements of the README when no name is given."""

import sys

from nao_ray.cli.app import main
from nao_ray.cli.bench import names, run

if __name__ == "__main__":
    if sys.argv[1:]:
        main(["bench", *sys.argv[1:]])
    for name in names():
        print(f"\n{name}", flush=True)
        run(name, [], as_json=False)
