"""The test score of a checkpoint of full training: ``python jobs/evaluate.py CHECKPOINT [--set task.path=...]``."""

import sys

from nao_ray.cli.app import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
