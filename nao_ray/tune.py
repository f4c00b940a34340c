"""For Ray Tune: ``from nao_ray.tune import NAOSearch``."""

from nao_ray.service.tune.search import NAOSearch

__all__ = ["NAOSearch"]
