"""Pools in a temporary folder."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from _made_up_trials import MANIFEST

from nao_ray.pool import Lease, PoolWriter


@pytest.fixture
def pool(tmp_path: Path) -> PoolWriter:
    return PoolWriter.create(tmp_path / "pool", MANIFEST)


@pytest.fixture
def lease(pool: PoolWriter) -> Iterator[Lease]:
    with pool.acquire() as lease:
        yield lease


@pytest.fixture
def folder(pool: PoolWriter) -> Path:
    return Path(pool.url)


@pytest.fixture(scope="module")
def server():
    """Speaks S3 on this machine; loaded for the tests that want it."""
    from _s3_server import S3Server

    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def url(server, monkeypatch, tmp_path):
    """A URL in a bucket of its own; endpoint and credentials by the environment, as a user gives them."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    server.requests.clear()
    server.writes.clear()
    yield f"s3://{bucket}/pools/run1"
    server.refuses, server.left, server.conditions = False, None, "kept"
