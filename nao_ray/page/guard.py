"""Who may ask the page's server for what, before anything is read.

Without a token the server listens on loopback alone, and answers requests alone that name this machine as their host: a
page of the web whose name was made to lead here (DNS rebinding) names itself. With a token every request has it, in a
cookie that the address with the token sets, or as a bearer. What changes or computes something has a header besides
that no form of another page can send.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

HEADER = "X-Nao-Ray"
"""That a request which is no GET must have."""
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FILM_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""Of the film, which has a narrower one of its own."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered."""

    status: int
    why: str


@dataclass(frozen=True, slots=True)
class Guard:
    """Of one server."""

    token: str | None
    """None: it listens on loopback."""
    cookie: str = "nao_ray_page"

    def refuses(self, method: str, headers: Mapping[str, str], cookies: Mapping[str, str]) -> Refusal | None:
        """Why a request is not answered; None: it is."""
        host = headers.get("Host", "")
        if self.token is None:
            if not is_loopback(name_of_host(host)):
                return Refusal(
                    403, f"this page answers to localhost alone, not to {host or 'a request without a host'}"
                )
        elif not self.knows(cookies.get(self.cookie)) and not self.knows(_bearer(headers)):
            return Refusal(401, "the token is missing or wrong: open the address that nao-ray page printed")
        if method in ("GET", "HEAD"):
            return None
        if HEADER not in headers:
            return Refusal(403, f"the header {HEADER} is missing")
        origin = headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return Refusal(403, f"a page of {origin} may not ask for this")
        return None

    def knows(self, token: str | None) -> bool:
        """Whether it is the token; takes as long for a wrong one, however much of it is right."""
        if self.token is None or token is None:
            return False
        return hmac.compare_digest(token.encode(), self.token.encode())


def name_of_host(host: str) -> str:
    """The name in a Host header, without the port: ``[::1]:80`` -> ``::1``."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(name: str) -> bool:
    """Whether a name or number of a host can only be this machine."""
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _bearer(headers: Mapping[str, str]) -> str | None:
    kind, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None
