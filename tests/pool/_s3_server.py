"""A server that speaks S3, on loopback, whose requests are carried out at once, counted, refused and held."""

import io
import threading
from collections import defaultdict

from moto.server import create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


class S3Server:
    """moto's S3, each request in a thread of its own.

    moto looks at a condition first and writes later, so that two writes of one key could both find it to hold; on S3
    they cannot. So writes of one key wait for one another, and nothing else waits for anything.
    """

    def __init__(self) -> None:
        self._app = create_backend_app("s3")  # moto's dispatcher looks through a folder for each request
        self._of_key: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self.refuses = False
        """Every request is answered with 503."""
        self.refused = 0
        self.left: int | None = None
        """Requests that are still carried out; the others are denied, as if their sender were dead."""
        self.conditions = "kept"
        """Or `ignored`, or `refused` as unknown, as servers did before they knew conditional writes."""
        self.requests: list[tuple[str, str]] = []
        """Method and path of those that came, in order; a listing's path ends in ``?list``."""
        self.writes: list[str] = []
        """Paths that were PUT or POSTed to, in order."""
        self._hold = ""
        self._held, self._go, self._done = threading.Event(), threading.Event(), threading.Event()
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=_Quiet)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def hold(self, path: str) -> None:
        """Keep the next PUT of a file whose path has `path` in it on its way, until `let_go`."""
        self._hold = path
        for event in (self._held, self._go, self._done):
            event.clear()

    def wait_held(self) -> None:
        assert self._held.wait(600)

    def let_go(self) -> None:
        """Carry the held request out, whether its sender still lives or not."""
        self._go.set()
        assert self._done.wait(600)

    def close(self) -> None:
        self._go.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _serve(self, environ, start):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        body = io.BytesIO(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        environ["wsgi.input"] = body
        self.requests.append((method, path + ("?list" if "list-type" in environ["QUERY_STRING"] else "")))
        if self.refuses:
            self.refused += 1
            return _error(start, "503 Slow Down", "SlowDown")
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                return _error(start, "403 Forbidden", "AccessDenied")
        if self.conditions != "kept":
            conditional = environ.pop("HTTP_IF_NONE_MATCH", None) or environ.pop("HTTP_IF_MATCH", None)
            if conditional and self.conditions == "refused":
                self.writes.append(path)
                return _error(start, "501 Not Implemented", "NotImplemented")
        held = method == "PUT" and bool(self._hold) and self._hold in path
        if held:
            self._hold = ""
            self._held.set()
            self._go.wait(600)
        if method == "PUT":
            self.writes.append(path)
            with self._of_key[path]:
                answer = list(self._app(environ, start))
        else:
            if method == "POST":
                self.writes.append(path)
            answer = list(self._app(environ, start))
        if held:
            self._done.set()
        return answer


def _error(start, status, code):
    body = f"<Error><Code>{code}</Code><Message>{status}</Message></Error>".encode()
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]
