"""Real clusters from the files in cluster/."""

import tempfile
from pathlib import Path

import pytest
from _site import HEAD, HERE, ROOT, STAND_INS, WORKER, Site, free_ports


@pytest.fixture
def site(tmp_path):
    """Ports, home and a short temp folder; every process with that folder is ended."""
    from _small_ray import FRUGAL  # with Ray, which other tests here do without

    temp = Path(tempfile.mkdtemp(prefix="nr"))
    ports = free_ports()
    here = tmp_path / "here"
    here.write_text(HERE.format(home=tmp_path, ports=ports))
    here.chmod(0o755)
    for host in (HEAD, WORKER):
        (tmp_path / host).mkdir()
    settings = {"TEMP_DIR": temp, "GCS_PORT": ports, "DASHBOARD_PORT": ports + 1, "NODE_PORTS": ports + 10}
    site = Site(tmp_path, temp, ports, {key: str(value) for key, value in settings.items()})
    site.environment |= FRUGAL | {
        "PATH": f"{STAND_INS / 'bin'}:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "NUM_CPUS": "1",
        "NUM_GPUS": "0",
        "WORKER_PORTS": f"{ports + 20}-{ports + 90}",
        "OMP_NUM_THREADS": "1",
        "RAY_worker_niceness": "0",  # Ray's own agents start as quickly as what else runs here
    }
    try:
        yield site
    finally:
        site.close()
