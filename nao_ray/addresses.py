"""Addresses of pools and data, which are recorded and shown, and so must not hold credentials."""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl

_SECRET = re.compile(r"key|secret|token|password|passwd|pwd|credential|signature|^sig$|^sas$", re.IGNORECASE)
"""Names of query parameters that hold a secret, such as `access_key`, `X-Amz-Signature` and Azure's `sig`."""

REMEDY = (
    "it would be recorded and shown; give them in the environment (such as AWS_ACCESS_KEY_ID), in the library's own "
    "file (such as ~/.aws/credentials) or by the machine's role"
)
"""What to do instead."""


def has_credentials(address: str) -> bool:
    """Whether a URL holds a password, a token or a signature; never for a plain path.

    A user's name alone is none (``gs://anonymous@bucket``, ``abfs://container@account``), except over HTTP, where it
    is how tokens are given.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return False
    place, _, query = rest.partition("?")
    authority = place.partition("/")[0]
    user, at, _ = authority.rpartition("@")
    if at:
        is_secret = ":" in user or scheme.lower() in ("http", "https")
    else:  # a secret with a slash in it, as AWS makes them: s3://KEY:SEC/RET@bucket
        _, colon, port = authority.partition(":")
        is_secret = bool(colon) and not port.isdigit() and "@" in place
    return is_secret or any(_SECRET.search(name) for name, _ in parse_qsl(query, keep_blank_values=True))


def split_query(address: str) -> tuple[str, str]:
    """A URL's path, and its query with the ``?``; the query of a plain path, and of a URL without one, is empty."""
    path, question, query = address.partition("?")
    return (path, question + query) if "://" in path else (address, "")


def extended(address: str, suffix: str) -> str:
    """The address whose path ends in `suffix` too, with its query behind it."""
    path, query = split_query(address)
    return f"{path.rstrip('/')}{suffix}{query}"


def absolute(place: str) -> str:
    """A path of this machine, made absolute, ``~`` too; an address as it is."""
    return place if "://" in place else os.path.abspath(os.path.expanduser(place))


def masked(address: str) -> str:
    """The address without what stands before an ``@`` and after a ``?``."""
    scheme, separator, rest = address.partition("://")
    rest, question, _ = rest.partition("?")
    user, at, place = rest.rpartition("@")
    return f"{scheme}{separator}{'***' if user else ''}{at}{place}{question}{'***' if question else ''}"
