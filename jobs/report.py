"""Write the report of a pool: ``python jobs/report.py POOL [--out FILE]``."""

import sys

from nao_ray.cli.app import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
