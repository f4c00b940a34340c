"""The main job, NAO on scikit-learn's digits; another one with ``python jobs/search.py CONFIG [options of search]``."""

import sys

from nao_ray.cli.app import main

if __name__ == "__main__":
    words = sys.argv[1:]
    main(["search", *(words if words and not words[0].startswith("--") else ["digits", *words])])
