"""A store of objects on this machine: as much of S3's protocol as GDAL speaks.

Google's is the same; of Azure's it knows objects that go in one piece.

Started as a script, as GDAL may keep Python's lock while it waits for an answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen


@dataclass(frozen=True)
class Store:
    """The tests' side: a store with the bucket `bucket`.

    Attributes:
        port: of this machine.
        key: of an output.
    """

    port: int
    key: str = "out.tif"

    @property
    def output(self) -> str:
        return f"s3://bucket/{self.key}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which GDAL finds the store."""
        return {
            "AWS_S3_ENDPOINT": f"127.0.0.1:{self.port}",
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "CPL_GS_ENDPOINT": f"http://127.0.0.1:{self.port}/",
            "GS_ACCESS_KEY_ID": "key",
            "GS_SECRET_ACCESS_KEY": "secret",
            "AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=http;"
            "AccountName=account;AccountKey=a2V5;"
            f"BlobEndpoint=http://127.0.0.1:{self.port}",
        }

    def put(self, key: str, content: bytes) -> None:
        self._ask("PUT", f"bucket/{key}", content)

    def get(self, key: str) -> bytes:
        return self._ask("GET", f"bucket/{key}")

    def keys(self) -> dict[str, bool]:
        """Return the keys, and whether each object came in parts."""
        found: dict[str, bool] = json.loads(self._ask("GET", "keys"))
        return found

    def reset(self, *, closed: bool = False, empty: bool = True) -> None:
        """Remove all objects if `empty`; refuse or accept what is written."""
        self._ask("PUT", "reset", json.dumps([closed, empty]).encode())

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        address = f"http://127.0.0.1:{self.port}/{path}"
        with urlopen(Request(address, body, method=method), timeout=30) as answer:
            content: bytes = answer.read()
        return content


@contextmanager
def store() -> Iterator[Store]:
    """Serve a store until the block ends."""
    with subprocess.Popen(
        [sys.executable, __file__],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as process:
        assert process.stdout is not None
        yield Store(int(process.stdout.readline()))
        process.kill()


class _Server(ThreadingHTTPServer):
    """The objects, and the parts of those that are not complete, in memory."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.in_parts: dict[str, bool] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.is_closed = False


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet, or each answer waits for 40 ms

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def handle_expect_100(self) -> bool:
        """Ask for the body at once, or each PUT waits for a second."""
        goes_on = super().handle_expect_100()
        self.wfile.flush()
        return goes_on

    def do_HEAD(self) -> None:
        self._give(with_body=False)

    def do_GET(self) -> None:
        self._give(with_body=True)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key, query = self._key(), self._query()
        if self.path == "/reset":
            self.server.is_closed, is_emptied = json.loads(body)
            if is_emptied:
                self.server.objects.clear()
            self._answer(200)
        elif self.server.is_closed:
            self._answer(403, _error("AccessDenied", "Access Denied"))
        elif key is None:
            self._no_bucket()
        elif "partNumber" in query:
            self.server.parts[key][int(query["partNumber"][0])] = body
            self._answer(200, ETag=f'"{len(body)}"')
        else:
            self.server.objects[key] = body
            self.server.in_parts[key] = False
            is_azure = "x-ms-blob-type" in self.headers
            self._answer(201 if is_azure else 200, ETag='"whole"')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = self._key()
        assert key is not None
        if "uploads" in self._query():
            self.server.parts[key] = {}
            begun = "InitiateMultipartUploadResult"
            self._answer(200, f"<{begun}><UploadId>1</UploadId></{begun}>".encode())
        else:
            parts = self.server.parts.pop(key)
            self.server.objects[key] = b"".join(parts[n] for n in sorted(parts))
            self.server.in_parts[key] = True
            self._answer(200, b"<CompleteMultipartUploadResult/>")

    def do_DELETE(self) -> None:
        self.server.parts.pop(self._key() or "", None)
        self._answer(204)

    def _give(self, *, with_body: bool) -> None:
        key = self._key()
        if self.path == "/keys":
            kinds = {name: self.server.in_parts[name] for name in self.server.objects}
            self._answer(200, json.dumps(kinds).encode())
            return
        if key is None:
            self._no_bucket()
            return
        if key == "":  # the list of a folder
            (prefix,) = self._query().get("prefix", [""])
            self._answer(200, _listing(self.server.objects, prefix))
            return
        content = self.server.objects.get(key)
        if content is None:
            self._answer(404, _error("NoSuchKey", "The specified key does not exist."))
            return
        wanted = self.headers.get("Range")
        if wanted is None:
            self._answer(200, content, with_body=with_body)
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        stop = min(int(last) + 1, len(content))
        bounds = f"bytes {first}-{stop - 1}/{len(content)}"
        self._answer(206, content[int(first) : stop], **{"Content-Range": bounds})

    def _key(self) -> str | None:
        bucket, _, key = urlsplit(self.path).path.lstrip("/").partition("/")
        return key if bucket == "bucket" else None

    def _query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query, keep_blank_values=True)

    def _no_bucket(self) -> None:
        text = "The specified bucket does not exist"
        self._answer(404, _error("NoSuchBucket", text))

    def _answer(
        self, code: int, body: bytes = b"", *, with_body: bool = True, **headers: str
    ) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body and self.command != "HEAD":
            self.wfile.write(body)


def _listing(objects: dict[str, bytes], prefix: str) -> bytes:
    rows = "".join(
        f"<Contents><Key>{key}</Key><Size>{len(content)}</Size>"
        "<LastModified>2026-11-30T00:00:00.000Z</LastModified></Contents>"
        for key, content in objects.items()
        if key.startswith(prefix) and "/" not in key.removeprefix(prefix)
    )
    head = f"<Name>bucket</Name><Prefix>{prefix}</Prefix><MaxKeys>999</MaxKeys>"
    return f"<ListBucketResult>{head}{rows}</ListBucketResult>".encode()


def _error(code: str, message: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


if __name__ == "__main__":
    server = _Server()
    print(server.server_port, flush=True)
    server.serve_forever()
