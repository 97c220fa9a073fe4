"""A small HTTP proxy between a client and a store: counts what passes, and fails as it is told to.

The Host header stays as the client sent it, so that signatures stay valid; clients use the proxy's address as endpoint.
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

BLOCK = 256 * 1024
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "proxy-connection", "upgrade", "te"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a rule decides by."""

    method: str
    path: str  # without the query
    query: str
    headers: dict[str, str]  # names in lower case
    number: int  # of this proxy's requests, from 0


@dataclass(frozen=True)
class Status:
    """Answer so, without asking the store."""

    status: int = 503
    code: str = "SlowDown"


@dataclass(frozen=True)
class Reset:
    """Reset the connection without asking the store."""


@dataclass(frozen=True)
class Stall:
    """Never answer."""


@dataclass(frozen=True)
class Cut:
    """Send the store this share of the body, then break off on both sides."""

    share: float = 0.6


@dataclass(frozen=True)
class LoseReply:
    """Have the store do it; reset the connection instead of passing on its answer."""


@dataclass(frozen=True)
class CutReply:
    """Pass on this share of the answer's body, then break off."""

    share: float = 0.6


Fault = Status | Reset | Stall | Cut | LoseReply | CutReply
Rule = Callable[[Request], Fault | None]


@dataclass(kw_only=True)
class Proxy:
    """One proxy; `rule` may be set at any time and is asked for every request, by several threads."""

    upstream: str  # http://host:port
    rule: Rule = lambda request: None
    requests: list[tuple[Request, Fault | None]] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)  # bytes of bodies to the store, by method
    received: Counter[str] = field(default_factory=Counter)  # bytes of bodies from the store, by method
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def decide(self, method: str, target: str, headers: dict[str, str]) -> Fault | None:
        """Note a request; what is to go wrong with it."""
        parts = urlsplit(target)
        with self._lock:
            request = Request(
                method=method, path=parts.path, query=parts.query, headers=headers, number=len(self.requests)
            )
            fault = self.rule(request)
            self.requests.append((request, fault))
        return fault

    def count(self, counter: Counter[str], method: str, size: int) -> None:
        """Add to a counter."""
        with self._lock:
            counter[method] += size

    def faults(self) -> int:
        """How many requests were failed so far."""
        with self._lock:
            return sum(fault is not None for _, fault in self.requests)


@contextmanager
def running(upstream: str, rule: Rule = lambda request: None) -> Iterator[Proxy]:
    """A proxy for the store at `upstream`, until the block ends."""
    proxy = Proxy(upstream=upstream.rstrip("/"), rule=rule)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy._closed.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Broken connections are the trade of this server."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing is printed."""

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = self.proxy.decide(self.command, self.path, headers)
        match fault:
            case Stall():
                self.proxy._closed.wait()
                self.close_connection = True
            case Reset():
                self._reset()
            case Status(status, code):
                self._body()
                self._answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())
            case Cut(share):
                self._forward(share)
                self._reset()
            case LoseReply():
                upstream, answer = self._forward()
                if answer is not None:
                    answer.read()
                upstream.close()
                self._reset()
            case CutReply(share):
                self._pass(share)
                self._reset()
            case None:
                self._pass()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _serve

    def _pass(self, share: float = 1.0) -> None:
        upstream, answer = self._forward()
        assert answer is not None
        try:
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            if self.command == "HEAD" or answer.status in (204, 304):
                self.end_headers()
                return
            length = answer.getheader("Content-Length")
            if length is None:  # it came in chunks
                data = answer.read()
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self._pass_on(data[: int(len(data) * share)])
                return
            self.end_headers()
            left = int(int(length) * share)
            while data := answer.read(min(BLOCK, left)):
                self._pass_on(data)
                left -= len(data)
        finally:
            upstream.close()

    def _pass_on(self, data: bytes) -> None:
        self.proxy.count(self.proxy.received, self.command, len(data))
        self.wfile.write(data)

    def _forward(self, share: float = 1.0) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse | None]:
        """Send the request on; the answer, or None when only a share of the body was sent."""
        upstream = http.client.HTTPConnection(urlsplit(self.proxy.upstream).netloc)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in HOP_BY_HOP:
                upstream.putheader(name, value)
        data = None if "chunked" not in self.headers.get("Transfer-Encoding", "") else self._chunked()
        size = int(self.headers.get("Content-Length", 0)) if data is None else len(data)
        if data is not None:
            upstream.putheader("Content-Length", str(size))
        upstream.endheaders()
        left = int(size * share)
        if data is not None:
            upstream.send(data[:left])
        while data is None and left:
            block = self.rfile.read(min(BLOCK, left))
            if not block:
                break
            upstream.send(block)
            left -= len(block)
        self.proxy.count(self.proxy.sent, self.command, int(size * share) - (left if data is None else 0))
        if share < 1:
            upstream.close()
            return upstream, None
        return upstream, upstream.getresponse()

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return self._chunked()
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunked(self) -> bytes:
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return data

    def _answer(self, status: int, data: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
