"""A server that speaks S3, on loopback, whose requests can be refused and held."""

import io
import threading

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class _Quiet(WSGIRequestHandler):
    def log(self, *_):
        pass


class S3Server:
    """moto's S3. One request at a time is carried out, so that conditions hold, as they do on S3."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._one = threading.Lock()
        self.refuses = False
        """Every request is answered with 503."""
        self.refused = 0
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
        assert self._held.wait(30)

    def let_go(self) -> None:
        """Carry the held request out, whether its sender still lives or not."""
        self._go.set()
        assert self._done.wait(30)

    def close(self) -> None:
        self._go.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _serve(self, environ, start):
        if self.refuses:
            self.refused += 1
            start("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"]
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        held = method == "PUT" and bool(self._hold) and self._hold in path
        if held:
            self._hold = ""
            environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            self._held.set()
            self._go.wait(60)
        with self._one:
            if method in ("PUT", "POST"):
                self.writes.append(path)
            answer = list(self._app(environ, start))
        if held:
            self._done.set()
        return answer
