"""``python -m nao_ray`` is the same as ``nao-ray``."""

import os
import sys

if sys.path[0] == os.getcwd() and not os.path.samefile(os.getcwd(), os.path.dirname(os.path.dirname(__file__))):
    del sys.path[0]  # a random.py beside a config is no part of the program

from nao_ray.cli.app import main

main()
