"""What Prometheus reads while a search runs on Ray, and the board that shows it."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import _forks
import pytest

from nao_ray.service.hosting.metrics import METRICS, BusyShare

ROOT = Path(__file__).parents[3]
BOARD = json.loads((ROOT / "cluster" / "grafana" / "nao_ray.json").read_text(encoding="utf-8"))

SEARCH = """
import sys
import ray
from nao_ray.config import RunConfig
from nao_ray.service.hosting import metrics
from nao_ray.service.hosting.run import run

exec(open(sys.argv[2]).read())
make_small(with_metrics=True)
metrics._EVERY = 0.5  # Ray collects every second here: half of that, as in earnest
ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
print(ray.nodes()[0]["NodeManagerAddress"], ray.nodes()[0]["MetricsExportPort"], flush=True)
config = RunConfig.parse(sys.stdin.read())
run(config, sys.argv[1])
"""
CONFIG = """
name: measured
space: nao_cnn_small
task: synthetic
evaluator: {name: faulty, error_share: 0.2, sleep_seconds: 0.5}
strategy: {name: nao, seeds: 6, round_size: 200, rounds: 3, refit_every: 20, pretraining: {genotypes: 50, steps: 5}}
budget: {trials: 5000}
workers: {count: 2, user: ada}
"""


def exported(address):
    """Samples of ours: name and labels -> value."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=600) as answer:
        text = answer.read().decode()
    samples = re.findall(r"^ray_(nao_\w+)\{(.*?)\} (\S+)$", text, flags=re.MULTILINE)
    return {
        (name, dict(re.findall(r'(\w+)="(.*?)"', labels)).get("state")): (
            float(value), dict(re.findall(r'(\w+)="(.*?)"', labels)),
        )
        for name, labels, value in samples
    }  # fmt: skip


@pytest.mark.ray
@pytest.mark.slow
def test_prometheus_finds_every_metric_of_a_search_on_ray(tmp_path):
    program = [sys.executable, "-c", SEARCH, str(tmp_path / "pool"), str(ROOT / "tests" / "_small_ray.py")]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_metrics_report_interval_ms": "1000"}
    driver = _forks.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    try:
        driver.stdin.write(CONFIG)
        driver.stdin.close()
        address = driver.stdout.readline().strip().replace(" ", ":")
        found, end = {}, time.monotonic() + 600
        while {name for name, _ in found} != set(METRICS) or found["nao_trials", "completed"][0] < 5:
            assert time.monotonic() < end, f"never exported: {set(METRICS) - {name for name, _ in found}}, {found}"
            assert driver.poll() is None
            time.sleep(1)
            found = exported(address)
        assert {state for name, state in found if name == "nao_trials"} == {"completed", "failed", "running", "queued"}
        assert {labels["search"] for _, labels in found.values()} == {"measured"}
        assert {labels["pool"] for _, labels in found.values()} == {str(tmp_path / "pool")}
        assert found["nao_workers", None][0] == 2
        assert 0 < found["nao_busy_share", None][0] <= 1
        assert 0 < found["nao_best_score", None][0] <= 1
        assert found["nao_fit_seconds", None][0] > 0
        assert 0 < found["nao_device_hours", None][0] < 1
        assert {labels["user"] for _, labels in found.values()} == {"ada"}
        time.sleep(8)  # longer than Ray keeps a gauge that is not set again
        assert {name for name, _ in exported(address)} == set(METRICS)
    finally:
        driver.terminate()
        driver.wait(timeout=600)
        driver.stdout.close()


def test_the_busy_share_is_weighted_by_time():
    share = BusyShare()
    assert share.share(0.0) is None
    share.add(0.0, 2, 2)
    assert share.share(0.0) == 1.0
    share.add(30.0, 0, 2)
    assert share.share(40.0) == pytest.approx(0.75)
    assert share.share(60.0) == pytest.approx(0.5)
    assert share.share(80.0) == pytest.approx(10 / 60)
    share.add(100.0, 1, 2)
    assert share.share(130.0) == pytest.approx(0.25)


# -- the board ----------------------------------------------------------------------------------------------


def queries():
    return [target["expr"] for panel in BOARD["panels"] for target in panel.get("targets", ())]


def test_the_board_shows_every_metric_and_no_other():
    named = set(re.findall(r"\bray_\w+", " ".join(queries())))
    named |= set(re.findall(r"\bray_\w+", BOARD["templating"]["list"][1]["query"]["query"]))
    assert named == {f"ray_{name}" for name in METRICS}
    assert all('search=~"$search"' in query for query in queries())
    targets = [target for panel in BOARD["panels"] for target in panel.get("targets", ())]
    legends = [target["legendFormat"] for target in targets if "by (user)" not in target["expr"]]
    assert all("{{search}} {{pool}}" in legend for legend in legends), "five seeds of one config are five lines"


def test_the_board_has_the_form_that_grafana_imports():
    assert BOARD["id"] is None
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", BOARD["uid"])
    assert isinstance(BOARD["schemaVersion"], int)
    assert BOARD["schemaVersion"] >= 36
    assert {"title", "panels", "templating", "time", "refresh", "tags", "timezone"} <= set(BOARD)
    source, search = BOARD["templating"]["list"]
    assert (source["type"], source["query"]) == ("datasource", "prometheus")
    assert (search["type"], search["name"], search["multi"]) == ("query", "search", True)
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in BOARD["panels"]:
        assert panel["type"] in {"timeseries", "stat", "gauge"}
        assert panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert set(panel["gridPos"]) == {"h", "w", "x", "y"}
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs)) > 0
        assert {"defaults", "overrides"} <= set(panel["fieldConfig"])


def test_no_two_panels_overlap():
    taken = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells
