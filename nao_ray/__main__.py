"""``python -m nao_ray`` is the same as ``nao-ray``."""

from nao_ray.cli.app import main

main()
