"""Start a search, or go on with one: ``python jobs/search.py [CONFIG] [--pool DIR] [--set section.key=value]...``.

CONFIG is a path or the name of a preset; without one, the embedded default runs: NAO on scikit-learn's digits, on
all CPU cores of this machine. Submitted with ``ray job submit``, it runs on the workers of that cluster.
"""

import sys

from nao_ray.cli.app import main

if __name__ == "__main__":
    words = sys.argv[1:]
    main(["search", *(words if words and not words[0].startswith("--") else ["digits", *words])])
