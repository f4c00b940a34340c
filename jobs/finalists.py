"""Train the best of a pool again, on the workers: ``python jobs/finalists.py POOL [-n 5] [--recipe NAME]``."""

import sys

from nao_ray.cli.app import main

if __name__ == "__main__":
    main(["finalists", *sys.argv[1:]])
