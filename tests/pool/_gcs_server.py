"""A stand-in for Google's storage: its XML interface as far as obstore uses it, with the generations of its objects.

No emulator that comes as a package carries conditions of this interface out (fake-gcs-server and gcp-storage-emulator
were tried), so this is ours: it shows that we send what Google documents, not what Google does.
"""

import threading
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

NEVER = "Fri, 02 Jan 2026 03:04:05 GMT"


class GcsServer:
    """Buckets come into being when they are used."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.generation = 0
        self.lock = threading.Lock()
        self.conditions: list[str] = []
        """Generations that writes were made conditional on."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"mine": self}))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mine: GcsServer

    def log_message(self, *_):
        pass

    def _path(self):
        return unquote(urlsplit(self.path).path).lstrip("/")

    def _answer(self, status, body=b"", generation=None, ranged=""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", NEVER)
        if ranged:
            self.send_header("Content-Range", ranged)
        if generation is not None:
            self.send_header("ETag", f'"{generation}-etag"')
            self.send_header("x-goog-generation", str(generation))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_PUT(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        wanted = self.headers.get("x-goog-if-generation-match")
        with self.mine.lock:
            _, now = self.mine.objects.get(self._path(), (b"", 0))
            if wanted is not None:
                self.mine.conditions.append(wanted)
                if int(wanted) != now:
                    return self._answer(412)
            self.mine.generation += 1
            self.mine.objects[self._path()] = body, self.mine.generation
            return self._answer(200, generation=self.mine.generation)

    def do_DELETE(self):
        with self.mine.lock:
            found = self.mine.objects.pop(self._path(), None)
        self._answer(404 if found is None else 204)

    def do_GET(self):
        query = {key: value[0] for key, value in parse_qs(urlsplit(self.path).query).items()}
        if "list-type" in query:
            return self._answer(200, self._listing(query))
        found = self.mine.objects.get(self._path())
        if found is None:
            return self._answer(404)
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if not first:
            return self._answer(200, found[0], found[1])
        some, size = found[0][int(first) : int(last) + 1], len(found[0])
        return self._answer(206, some, found[1], f"bytes {first}-{int(first) + len(some) - 1}/{size}")

    def do_HEAD(self):
        return self.do_GET()

    def _listing(self, query):
        bucket, prefix = self._path().strip("/") + "/", query.get("prefix", "")
        with self.mine.lock:
            there = {name.removeprefix(bucket): found for name, found in sorted(self.mine.objects.items())}
        folders, files = {}, []
        for name, (body, generation) in there.items():
            if not name.startswith(prefix) or name <= query.get("start-after", ""):
                continue
            head, slash, _ = name[len(prefix) :].partition("/")
            if query.get("delimiter") and slash:
                folders[f"<CommonPrefixes><Prefix>{escape(prefix + head)}/</Prefix></CommonPrefixes>"] = None
                continue
            files.append(
                f"<Contents><Key>{escape(name)}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
                f"<ETag>{generation}-etag</ETag><Size>{len(body)}</Size></Contents>"
            )
        return f"<ListBucketResult>{''.join(files)}{''.join(folders)}</ListBucketResult>".encode()
