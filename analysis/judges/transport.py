"""One request to a server that may be slow, endless or broken: bounded in time and in size.

A proxy is used where the environment names one (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY), but
never for this machine itself. To an https address a proxy passes on what it cannot read. To an http
address it reads everything, the key too, and so do all machines on the way.
"""

import ipaddress
import socket
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

LARGEST = 4 * 10**6
"""Bytes of an answer, as sent and decompressed: many times what a judge's answer has."""
PACKED = {"gzip": 31, "x-gzip": 31, "deflate": 47}
"""Compressions that are undone, with zlib's number for each. None is asked for."""


class NoReply(Exception):
    """No whole answer came; the message says why."""


class TooLong(Exception):
    """The answer is larger than any that a judge needs, or packed in a way that is not undone."""


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    status: int
    text: str
    retry_after: str | None


@dataclass
class _Watch:
    """Cuts the connection of one request when its time is over, whatever it is waiting for."""

    seconds: float
    over: bool = False
    _socket: Any = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of the connection; httpx tells of every step of a request."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            with self._lock:
                self._socket = info["return_value"].get_extra_info("socket")
            if self.over:
                self.cut()

    def cut(self) -> None:
        """End the connection: whoever waits for it gets an error at once."""
        self.over = True
        with self._lock, suppress(OSError):
            if self._socket is not None:
                # Not SSLSocket.shutdown, which would take the connection apart under its reader.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    @contextmanager
    def running(self) -> Iterator[None]:
        timer = threading.Timer(self.seconds, self.cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


@contextmanager
def client_for(url: str, headers: Mapping[str, str], timeout_s: float) -> Iterator[Any]:
    """A client for one address: no redirects, no cookies, each request its own connection."""
    httpx = httpx_or_advice()
    limits = httpx.Limits(max_keepalive_connections=0)
    transport = httpx.HTTPTransport(proxy=proxy_for(url), limits=limits)
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    with httpx.Client(
        transport=transport,
        headers={**headers, "Accept-Encoding": "identity"},
        cookies=no_cookies,
        timeout=timeout_s,
        follow_redirects=False,
    ) as client:
        yield client


def post(client: Any, url: str, content: bytes, seconds: float) -> Reply:
    """The answer to one request, whole after so many seconds or not at all.

    NoReply where none came, TooLong for one that is no answer by its size.
    """
    httpx, watch = httpx_or_advice(), _Watch(seconds)
    try:
        with (
            watch.running(),
            client.stream(
                "POST",
                url,
                content=content,
                headers={"Content-Type": "application/json"},
                extensions={"trace": watch.trace},
            ) as reply,
        ):
            packed = reply.headers.get("Content-Encoding", "")
            body = _unpacked(_bounded(reply.iter_raw(), watch), packed.strip().lower())
            text = body.decode("utf-8-sig", "replace")
            return Reply(reply.status_code, text, reply.headers.get("Retry-After"))
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
        if watch.over:
            raise NoReply(f"no whole answer within {seconds:g} s (a timeout)") from None
        raise NoReply(f"{type(error).__name__}: {error}") from error


def _bounded(chunks: Iterable[bytes], watch: _Watch) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > LARGEST:
            raise TooLong(f"it is larger than {LARGEST // 10**6} MB")
    if watch.over:  # a body whose end is the end of the connection
        raise OSError("cut")
    return bytes(body)


def _unpacked(body: bytes, packed: str) -> bytes:
    if packed in ("", "identity"):
        return body
    if packed not in PACKED:
        raise TooLong(f"it is packed as {packed[:40]!r}, which was not asked for")
    unpacking = zlib.decompressobj(PACKED[packed])
    try:
        plain = unpacking.decompress(body, LARGEST)
    except zlib.error as error:
        raise TooLong(f"it cannot be unpacked ({error})") from error
    if unpacking.unconsumed_tail:
        raise TooLong(f"it is larger than {LARGEST // 10**6} MB once unpacked")
    if not unpacking.eof:
        raise TooLong("it ends in the middle of what is packed")
    return plain


def proxy_for(url: str) -> str | None:
    """The proxy by which the environment has this address asked, if any."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or is_this_machine(host) or proxy_bypass(parts.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def is_this_machine(host: str) -> bool:
    """Whether a host can only be this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def httpx_or_advice() -> Any:
    """The module httpx; ImportError that says how to get it."""
    try:
        import httpx
    except ImportError as error:
        raise ImportError(
            "An LLM judge needs httpx, which is not installed: pip install steerlens[llm-judge]"
        ) from error
    return httpx
