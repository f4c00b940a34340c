"""Train an architecture in full, then its test score: ``python jobs/train.py POOL:best --recipe NAME [--set ...]``.

It trains where it runs: with ``ray job submit --entrypoint-num-gpus 1`` on a GPU of the cluster.
"""

import sys

from nao_ray.cli.app import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
