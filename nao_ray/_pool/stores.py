"""Which object storage an address means: s3://, gs://, az:// or abfs(s)://, by the library `obstore`.

Endpoint, region and TLS may stand in the address's query, as pyarrow has it
(``?endpoint_override=localhost:9000&scheme=http&region=us-east-1``), or in the environment. Credentials are found where
each vendor's own tools find them: for S3 by boto3 (environment, ``~/.aws``, single sign-on, the machine's role), for
the others by obstore (environment, Google's application default credentials, Azure's managed identity).
``memory://NAME`` is gone with the process: to try things out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping
from datetime import timedelta
from functools import cache, lru_cache
from typing import Any
from urllib.parse import parse_qsl

import pyarrow.fs as pafs
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store

from nao_ray._pool.faults import line
from nao_ray.addresses import masked
from nao_ray.errors import PoolError

KINDS = {
    "s3": "s3",
    "gs": "gs",
    "gcs": "gs",
    "az": "az",
    "azure": "az",
    "abfs": "az",
    "abfss": "az",
    "memory": "memory",
}
_QUERY = ("endpoint_override", "region", "scheme", "tls_ca_file_path", "tls_verify_certificates")
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
NO_CREDENTIALS = "no credentials were found, in the environment, the vendor's own file or the machine's role"
METADATA = "//169.254.169.254/"
"""Where a machine in a cloud asks for its role: the last place to look."""

_CREDENTIAL_FILES = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}
"""The variable that names each, and where it is without."""
_CONNECT_SECONDS = 10.0
_AWAY = (
    "pools live in a folder or at s3://, gs://, az:// or abfs(s)://; other storage can be mounted and given as a folder"
)

Opener = Callable[[float, int], Any]
"""Makes the store of a bucket, given the seconds a request may take and how often it is sent again."""


def parse(url: str) -> tuple[Opener, str]:
    """What opens the storage of an address, and the path in its bucket.

    Raises:
        PoolError: no such kind of address, or a part of it is not understood.
    """
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    kind = KINDS.get(scheme.lower())
    if kind is None:
        raise PoolError(f"cannot open {masked(url)}: {_AWAY}")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(options) - set(_QUERY))
    if unknown:
        raise PoolError(f"cannot open {masked(url)}: its query has {unknown[0]!r}; known are {', '.join(_QUERY)}")
    authority, _, path = place.partition("/")
    user, at, host = authority.rpartition("@")
    bucket = user if kind == "az" and at else host
    if not bucket:
        raise PoolError(f"cannot open {masked(url)}: it names no bucket")
    if kind == "memory":
        return (lambda _seconds, _again: _memory(bucket)), path.strip("/")
    account = host.partition(".")[0] if kind == "az" and at else None

    def opener(seconds: float, again: int) -> Any:  # noqa: ANN401 - one class for each kind of storage
        endpoint = _endpoint(options)
        has_http = (endpoint or _from_environment(kind)).startswith("http://")
        try:
            return _MAKERS[kind](
                bucket,
                account,
                endpoint,
                options,
                client_options=_client(seconds, options, has_http=has_http),
                retry_config=_retries(seconds, again),
            )
        except (BaseError, OSError, ValueError) as error:
            raise PoolError(f"cannot open {masked(url)}: {line(error)}") from None

    return opener, path.strip("/")


_memories: dict[str, MemoryStore] = {}


def _memory(bucket: str) -> MemoryStore:
    return _memories.setdefault(bucket, MemoryStore())


def _session() -> Any:  # noqa: ANN401 - boto3 has no types
    """That of the credentials as they are now."""
    said = sorted(item for item in os.environ.items() if item[0].startswith("AWS_") or item[0] == "HOME")
    files = (os.environ.get(name, path) for name, path in _CREDENTIAL_FILES.items())
    return _session_of(tuple(said), tuple(_changed(os.path.expanduser(path)) for path in files))


@lru_cache(maxsize=8)
def _session_of(_said: Hashable, _files: Hashable) -> object:
    """A session takes 6 ms, and credentials that expire are asked for once."""
    import boto3

    return boto3.Session()


def _changed(path: str) -> tuple[int, int] | None:
    """When a file was changed, and its size; None: there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _s3(
    bucket: str,
    _account: str | None,
    endpoint: str,
    options: Mapping[str, str],
    **config: Any,  # noqa: ANN401
) -> S3Store:
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    if endpoint:
        config["endpoint"] = endpoint
    try:
        found = _session()
        region = options.get("region") or found.region_name or os.environ.get("AWS_REGION")
        config["region"] = region or _region(bucket, has_endpoint=bool(endpoint or _from_environment("s3")))
        is_signed = os.environ.get("AWS_SKIP_SIGNATURE", "").lower() not in ("1", "true")
        if is_signed:
            if found.get_credentials() is None:
                raise ValueError(f"{NO_CREDENTIALS}; a public bucket is read with AWS_SKIP_SIGNATURE=true")
            config["credential_provider"] = Boto3CredentialProvider(found)
    except BotoCoreError as error:
        raise ValueError(str(error)) from None
    return S3Store(bucket, **config)


@cache
def _region(bucket: str, *, has_endpoint: bool) -> str:
    """Where a bucket is, asked of AWS; another server does not mind."""
    try:
        return "us-east-1" if has_endpoint else pafs.resolve_s3_region(bucket)
    except OSError:
        return "us-east-1"


def _gs(bucket: str, _account: str | None, endpoint: str, _options: Mapping[str, str], **config: Any) -> GCSStore:  # noqa: ANN401
    if endpoint:
        config["base_url"] = endpoint
    return GCSStore(bucket, **config)


def _az(bucket: str, account: str | None, endpoint: str, _options: Mapping[str, str], **config: Any) -> AzureStore:  # noqa: ANN401
    if endpoint:
        config["endpoint"] = endpoint
    if account:
        config["account_name"] = account
    return AzureStore(bucket, **config)


def _endpoint(options: Mapping[str, str]) -> str:
    endpoint = options.get("endpoint_override", "")
    return f"{options.get('scheme', 'https')}://{endpoint}" if endpoint and "://" not in endpoint else endpoint


def _from_environment(kind: str) -> str:
    return next((found for name in _ENDPOINTS[kind] if (found := os.environ.get(name))), "")


def _client(seconds: float, options: Mapping[str, str], *, has_http: bool) -> dict[str, Any]:
    config: dict[str, Any] = {
        "timeout": timedelta(seconds=seconds),
        "connect_timeout": timedelta(seconds=min(_CONNECT_SECONDS, seconds)),
        "allow_http": has_http,
    }
    if options.get("tls_verify_certificates") == "false":
        config["allow_invalid_certificates"] = True
    if path := options.get("tls_ca_file_path"):
        with open(path, "rb") as file:
            config["root_certificate"] = file.read()
    return config


def _retries(seconds: float, again: int) -> dict[str, Any]:
    backoff = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2}
    return {"max_retries": again, "retry_timeout": timedelta(seconds=(1 + again) * seconds), "backoff": backoff}


_MAKERS: dict[str, Callable[..., Any]] = {"s3": _s3, "gs": _gs, "az": _az}
