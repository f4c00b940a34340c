"""Pools on Azure's and Google's storage: the same as on S3."""

import base64
import email.utils
import hashlib
import hmac
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
import uuid
from functools import partial

import pytest
from _gcs_server import GcsServer
from _made_up_trials import MANIFEST, make_trial, record
from _s3_drivers import take_over, vanish

from nao_ray._pool.objects import ObjectStorage
from nao_ray.errors import FencedError, PoolError
from nao_ray.pool import PoolReader, PoolWriter

ACCOUNT = "devstoreaccount1"
# published: every azurite has it
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@pytest.fixture(scope="module")
def google():
    server = GcsServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def azure(tmp_path_factory):
    """Azure's emulator, where there is one; returns its endpoint."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("no azurite-blob on the PATH: npm install -g azurite")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--blobPort", str(port), "--inMemoryPersistence", "--silent", "--skipApiVersionCheck"]
    process = subprocess.Popen([program, *words], cwd=tmp_path_factory.mktemp("azurite"), stdout=subprocess.DEVNULL)
    end = time.monotonic() + 600
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()  # and again
            break
        except OSError:
            assert time.monotonic() < end, "azurite did not start"
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/{ACCOUNT}"
    process.kill()
    process.wait()


def make_container(endpoint: str, name: str) -> None:
    date = email.utils.formatdate(usegmt=True)
    headers = {"x-ms-date": date, "x-ms-version": "2021-08-06", "Content-Length": "0"}
    what = f"x-ms-date:{date}\nx-ms-version:2021-08-06\n/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    signed = hmac.new(base64.b64decode(KEY), f"PUT{chr(10) * 12}{what}".encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signed).decode()}"
    url = f"{endpoint}/{name}?restype=container"
    urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers)).close()


@pytest.fixture(params=["az", "abfs", "gs"])
def url(request, monkeypatch):
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    if request.param == "gs":
        server = request.getfixturevalue("google")
        account = {"gcs_base_url": server.endpoint, "disable_oauth": True, "client_email": "", "private_key": ""}
        monkeypatch.setenv("GOOGLE_BASE_URL", server.endpoint)
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(account | {"private_key_id": ""}))
        return f"gs://{bucket}/pools/run1"
    endpoint = request.getfixturevalue("azure")
    make_container(endpoint, bucket)
    for name, value in {"ENDPOINT": endpoint, "ACCOUNT_NAME": ACCOUNT, "ACCOUNT_KEY": KEY}.items():
        monkeypatch.setenv(f"AZURE_STORAGE_{name}", value)
    place = f"{bucket}@{ACCOUNT}.dfs.core.windows.net" if request.param == "abfs" else bucket
    return f"{request.param}://{place}/pools/run1"


def test_a_pool_is_made_written_merged_read_and_taken_up_again(url):
    assert not PoolReader.exists(url)
    made = PoolWriter.create(url, MANIFEST)
    with made.acquire():
        finished = record(made, 0, 5)
        made.record_fits([{"round": 0, "loss": 1.0}])
        made.record_fits([{"round": 1, "loss": 0.5}])
        made.write_weights("v1", b"weights")
        made.compact()
        finished += record(made, 5, 4)
        made.compact()
        assert len(made._storage.entries("trials")) == 1
        finished += record(made, 9, 3)
    again = PoolWriter.open(url)
    assert isinstance(again._storage, ObjectStorage)
    assert again.log() == finished
    assert again.fits()["loss"].tolist() == [1.0, 0.5]
    assert again.read_weights("v1") == b"weights"
    assert again.sql("SELECT count(*) AS n FROM trials")["n"].tolist() == [12]
    assert again.check() == []
    with again.acquire() as lease:
        assert lease.epoch == 2
        record(again, 12, 1)
    assert again.check() == []


def test_a_replaced_driver_writes_nothing_more(url):
    """Neither its parts, nor its heartbeat, nor the strategy's diagnostics."""
    made = PoolWriter.create(url, MANIFEST)
    lease = made.acquire()
    record(made, 0, 2)
    made.record_fits([{"round": 0, "loss": 1.0}])
    vanish(made)
    other = take_over(url)
    for write in (
        partial(made.record_finished, [make_trial(2)]),
        partial(lease._write, released=False),
        partial(made.record_fits, [{"round": 1, "loss": 9.0}]),
        made.compact,
    ):
        with pytest.raises(FencedError):
            write()
    record(other, 2, 1)
    other.record_fits([{"round": 1, "loss": 0.5}])
    other._lease.release()
    assert PoolReader.open(url).trials()["trial_id"].tolist() == [0, 1, 2]
    assert PoolReader.open(url).fits()["loss"].tolist() == [1.0, 0.5]
    assert PoolReader.open(url).check() == []


def test_of_drivers_that_claim_at_once_one_gets_the_pool(url):
    PoolWriter.create(url, MANIFEST)
    for epoch in range(1, 6):
        start, leases, refused = threading.Barrier(3), [], []

        def claim(start=start, leases=leases, refused=refused) -> None:
            pool = PoolWriter.open(url)
            start.wait()
            try:
                leases.append(pool.acquire())
            except PoolError as error:
                refused.append(str(error))

        threads = [threading.Thread(target=claim) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [lease.epoch for lease in leases] == [epoch], refused
        leases[0].release()


def test_writes_at_google_are_conditional_on_generations(google, monkeypatch):
    account = {"gcs_base_url": google.endpoint, "disable_oauth": True, "client_email": "", "private_key": ""}
    monkeypatch.setenv("GOOGLE_BASE_URL", google.endpoint)
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(account | {"private_key_id": ""}))
    storage = ObjectStorage(f"gs://b{os.getpid()}/pool")
    google.conditions.clear()
    assert storage.create("lease/a", b"1")
    tag = storage.look("lease/a")[1]
    now = storage.swap("lease/a", b"2", tag)
    assert now is not None
    assert storage.swap("lease/a", b"3", tag) is None
    assert storage.swap("lease/a", b"4", now) is not None
    assert google.conditions[:2] == ["0", dict(tag)["version"]]
    storage.remove("lease/a", "lease/b")
    assert not storage.exists("lease/a")
