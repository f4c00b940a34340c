"""Pools on S3: writes that hold only if nobody else has written meanwhile (`If-None-Match`, `If-Match`).

pyarrow reads, but writes without conditions, and a small file in three requests; boto3 writes, which finds endpoint,
region and credentials where pyarrow finds them. So of two drivers that claim a pool at once one gets it, and a request
of a replaced driver that was on its way changes nothing when it arrives (`lease.py` and `parts.py` say how).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from urllib.parse import parse_qsl

import pyarrow.fs as pafs

from nao_ray._pool.storage import Guard, RemoteStorage
from nao_ray.errors import PoolWriteError

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_LOST = ("PreconditionFailed", "NoSuchKey", "404", "412")
_BUSY = ("ConditionalRequestConflict", "409")  # another conditional write of the same file is under way
_UNKNOWN = ("NotImplemented", "501")
_TRIES = 5
_SECONDS = 60.0  # that a server may be silent
_LEASE_SECONDS = 4.0  # the same for the lease: twice and a pause are well within a driver's expiry of 30 s

_log = logging.getLogger(__name__)


class S3Storage(RemoteStorage):
    """A prefix of a bucket."""

    def __init__(self, filesystem: pafs.FileSystem, root: str, url: str) -> None:
        super().__init__(filesystem, root, url)
        self.has_conditions = True
        region = getattr(filesystem, "region", None)
        self._client = _client(url, region)
        self._quick = _client(url, region, _LEASE_SECONDS)

    def write(self, name: str, data: bytes | memoryview, guard: Guard = nullcontext) -> None:
        with self._failures(name):
            before = self._tag(name)
            with guard():  # ours after the tag was taken: what another driver writes from now on has another tag
                if self.swap(name, data, before):
                    return
            with guard():
                pass
        raise PoolWriteError(f"{self.path(name)} was changed by another process while it was written; try again")

    def create(self, name: str, data: bytes) -> bool:
        with self._failures(name):
            if not self.has_conditions and self.exists(name):
                return False
        return self.swap(name, data, None)

    def look(self, name: str) -> tuple[bytes, str]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            found = self._client_for(name).get_object(**self._where(name))
            return found["Body"].read(), str(found["ETag"])
        except ClientError as error:
            kind = FileNotFoundError if _code(error) in _LOST else OSError
            raise kind(f"cannot read {self.path(name)}: {' '.join(str(error).split())}") from None
        except BotoCoreError as error:
            raise OSError(f"cannot read {self.path(name)}: {' '.join(str(error).split())}") from None

    def swap(self, name: str, data: bytes | memoryview, tag: str | None) -> bool:
        body = bytes(data)
        condition = {} if not self.has_conditions else {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        with self._failures(name):
            if self._put(name, body, condition):
                return True
            # it may be ours all the same: its answer was lost, and it was sent again
            try:
                return self.look(name)[0] == body
            except FileNotFoundError:
                return False

    def _put(self, name: str, body: bytes, condition: dict[str, str]) -> bool:
        """Whether the condition held."""
        from botocore.exceptions import ClientError

        for attempt in range(_TRIES):
            try:
                self._client_for(name).put_object(**self._where(name), Body=body, **condition)
            except ClientError as error:
                if condition and _code(error) in _UNKNOWN:
                    _log.warning("%s knows no conditional writes: two drivers at once may disturb each other", self.url)
                    self.has_conditions = False
                    if "IfNoneMatch" in condition and self.exists(name):
                        return False
                    condition = {}
                elif _code(error) in _LOST and condition:
                    return False
                elif _code(error) not in _BUSY or attempt == _TRIES - 1:
                    raise
            else:
                return True
        return False

    def _tag(self, name: str) -> str | None:
        from botocore.exceptions import ClientError

        try:
            return str(self._client.head_object(**self._where(name))["ETag"])
        except ClientError as error:
            if _code(error) in _LOST:
                return None
            raise

    def _client_for(self, name: str) -> Any:  # noqa: ANN401
        """A heartbeat must not wait for a request that hangs until the driver counts as dead; a large file may."""
        return self._quick if name.startswith("lease/") else self._client

    def _where(self, name: str) -> dict[str, str]:
        bucket, _, key = self.path(name).partition("/")
        return {"Bucket": bucket, "Key": key}

    @contextmanager
    def _failures(self, name: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError, OSError) as error:
            raise self.failed(name, error) from None


def _code(error: Any) -> str:  # noqa: ANN401 - botocore has no types
    return str(error.response.get("Error", {}).get("Code"))


def _client(url: str, region: str | None, seconds: float = _SECONDS) -> Any:  # noqa: ANN401 - made as boto3 goes
    """A client for the same server as pyarrow's, whose requests hang for at most so long, up to four times.

    Endpoint by the URL's query or the environment.
    """
    import boto3
    from botocore.config import Config

    query = dict(parse_qsl(url.partition("?")[2]))
    endpoint = query.get("endpoint_override")
    if endpoint and "://" not in endpoint:
        endpoint = f"{query.get('scheme', 'https')}://{endpoint}"
    has_endpoint = bool(endpoint or any(os.environ.get(name) for name in _ENDPOINTS))
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=region or None,
        verify=query.get("tls_ca_file_path") or (False if query.get("tls_verify_certificates") == "false" else None),
        config=Config(
            connect_timeout=min(10.0, seconds),
            read_timeout=seconds,
            retries={"mode": "standard", "total_max_attempts": 4 if seconds == _SECONDS else 2},
            s3={"addressing_style": "path" if has_endpoint else "auto"},  # as pyarrow has it
            request_checksum_calculation="when_required",  # not every server that speaks S3 knows the others
            response_checksum_validation="when_required",
        ),
    )
