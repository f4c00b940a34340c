"""The measurements that start clusters of their own load with the oldest Ray that is promised."""

import importlib.util

from ray._private.authentication import authentication_token_setup

from benchmarks import site


def test_an_older_ray_takes_no_token_by_itself(monkeypatch):
    monkeypatch.delattr(authentication_token_setup, "maybe_enable_token_auth_if_token_available")
    spec = importlib.util.find_spec(site.__name__)
    fresh = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(importlib.sys.modules, site.__name__, fresh)  # where its dataclasses look themselves up
    spec.loader.exec_module(fresh)
    fresh._take_token()
