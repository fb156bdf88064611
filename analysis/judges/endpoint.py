"""A language model on any server with OpenAI-compatible chat completions: retries, pace, cache.

The key is read from the environment when a request is made, and kept nowhere.
"""

import email.utils
import hashlib
import json
import math
import os
import random
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from threading import Lock, get_ident
from time import monotonic, sleep
from typing import Any, TypeAlias
from urllib.parse import urlsplit

Choice: TypeAlias = dict[str, Any]
LONGEST_WAIT = 600.0
SHORTEST_KEY = 8
_jitter = random.Random()  # its own: the seed that a user sets stays as it is


class EndpointError(RuntimeError):
    """The server refused, gave no answer, or gave one that cannot be read."""


class _Pace:
    """Spaces the starts of requests evenly, over every thread and judge of one endpoint."""

    def __init__(self) -> None:
        self._lock, self._next = Lock(), -math.inf

    def wait(self, per_minute: float | None) -> None:
        if per_minute is None:
            return
        with self._lock:
            now = monotonic()
            start = max(now, self._next)
            self._next = start + 60.0 / per_minute
        if start > now:
            sleep(start - now)


@dataclass(frozen=True)
class Endpoint:
    """A model on a server, and how to speak to it.

    The key is read from the environment variable `key_variable` when a request is made, and kept
    nowhere; None is for a server that wants no key. `retries` follow a lost connection, a timeout
    and the statuses 408, 429 and 5xx. `cache` is a folder of answers, one JSON file a request:
    what is in it is not asked again, and needs neither the key nor the network.
    """

    base_url: str
    model: str
    key_variable: str | None = "OPENAI_API_KEY"
    cache: str | Path | None = None
    timeout_s: float = 60.0
    retries: int = 5
    requests_per_minute: float | None = None
    concurrency: int = 4
    progress: bool = False
    _pace: _Pace = field(default_factory=_Pace, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        bare = not ("@" in parts.netloc or parts.query or parts.fragment)
        if parts.scheme not in ("http", "https") or not parts.hostname or not bare:
            raise ValueError(  # without the address: a key may be in it
                "Endpoint(base_url=...) is the address before /chat/completions, such as "
                "http://localhost:8000/v1, without user, query or fragment. This one is not; the "
                "key belongs in the environment variable that key_variable names."
            )
        limit = self.requests_per_minute
        positive = self.concurrency > 0 and self.timeout_s > 0 and (limit is None or limit > 0)
        if self.retries < 0 or not positive:
            raise ValueError(
                "An Endpoint needs retries >= 0, concurrency >= 1, timeout_s > 0 and "
                "requests_per_minute > 0, or None for no limit; found "
                f"{self.retries}, {self.concurrency}, {self.timeout_s} and {limit}."
            )

    @property
    def url(self) -> str:
        """Where requests go."""
        return self.base_url.rstrip("/") + "/chat/completions"

    def ask(
        self,
        prompts: Sequence[str],
        read: Callable[[Choice], float],
        parameters: Mapping[str, Any],
    ) -> list[float]:
        """What `read` makes of the answer to each prompt, in order; equal prompts are asked once.

        An answer that `read` refuses with a ValueError ends in an error and is not cached.
        """
        values, missing = {}, {}
        for prompt in dict.fromkeys(prompts):
            messages = [{"role": "user", "content": prompt}]
            body = {"model": self.model, "messages": messages, **parameters}
            value = self._cached(body, read)
            if value is None:
                missing[prompt] = body
            else:
                values[prompt] = value
        if missing:
            values.update(zip(missing, self._fetch(missing.values(), read), strict=True))
        return [values[prompt] for prompt in prompts]

    def _fetch(self, bodies: Collection[Any], read: Callable[[Choice], float]) -> list[float]:
        from tqdm.auto import tqdm

        httpx, key = _httpx(), self._key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}

        def fetch(body: dict[str, Any]) -> float:
            text = self._post(client, body, key)
            try:
                answer = json.loads(text)
                value = read(_choice(answer))
            except ValueError as error:
                raise EndpointError(
                    f"{self.model} at {self.url} gave an answer that cannot be used: {error}\n"
                    f"The answer begins: {text[:200]!r}"
                ) from error
            self._keep(body, answer)
            return value

        with (
            httpx.Client(headers=headers, timeout=self.timeout_s) as client,
            ThreadPoolExecutor(self.concurrency) as pool,
        ):
            fetched = pool.map(fetch, bodies)  # the first error cancels what has not begun
            return list(tqdm(fetched, "judge", len(bodies), disable=not self.progress))

    def _post(self, client: Any, body: dict[str, Any], key: str) -> str:
        complaint = ""
        for attempt in range(self.retries + 1):
            self._pace.wait(self.requests_per_minute)
            pause = 2.0 ** min(attempt, 6) * _jitter.uniform(0.5, 1.0)
            try:
                reply = client.post(
                    self.url,
                    content=json.dumps(body).encode(),
                    headers={"Content-Type": "application/json"},
                )
            except _httpx().RequestError as error:
                complaint = _without(key, f"{type(error).__name__}: {error}")
            else:
                text = _without(key, reply.text)
                if reply.status_code == 200:
                    return text
                complaint = f"HTTP {reply.status_code}: {_message(text)}"
                if reply.status_code not in (408, 429) and reply.status_code < 500:
                    raise EndpointError(f"{self.model} at {self.url} refused: {complaint}")
                pause = _retry_after(reply.headers.get("Retry-After"), pause)
            if pause > LONGEST_WAIT:
                raise EndpointError(
                    f"{self.model} at {self.url} asks to wait {pause:.0f} s, which is too long. "
                    f"Call again then; what is cached stays. It said {complaint}"
                )
            if attempt < self.retries:
                sleep(pause)
        raise EndpointError(
            f"{self.model} at {self.url} gave no answer in {self.retries + 1} tries. The last: "
            f"{complaint}"
        )

    def _key(self) -> str:
        if self.key_variable is None:
            return ""
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise ValueError(
                f"The key for {self.url} is read from the environment variable "
                f"{self.key_variable}, which is not set. Set it, or pass key_variable=None for a "
                "server that wants no key."
            )
        if not (key.isascii() and key.isprintable()):
            raise ValueError(f"{self.key_variable} holds characters that no key has. Set it anew.")
        return key

    def _place(self, body: dict[str, Any]) -> tuple[dict[str, Any], Path | None]:
        """A request as the cache knows it, and its file there."""
        request = {"url": self.url, "body": body}
        digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        return request, None if self.cache is None else Path(self.cache) / f"{digest}.json"

    def _cached(self, body: dict[str, Any], read: Callable[[Choice], float]) -> float | None:
        request, path = self._place(body)
        if path is None or not path.exists():
            return None
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["request"] != request:
                raise ValueError("it is the answer to another request")
            return read(_choice(kept["answer"]))
        except (OSError, ValueError, TypeError, KeyError) as error:
            message = f"The cached answer {path} is damaged ({error}), and is asked for again."
            warnings.warn(message, stacklevel=4)
            return None

    def _keep(self, body: dict[str, Any], answer: dict[str, Any]) -> None:
        request, path = self._place(body)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}-{get_ident()}.draft")
        try:
            draft.write_text(json.dumps({"request": request, "answer": answer}), encoding="utf-8")
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def _choice(answer: Any) -> Choice:
    try:
        choice = answer["choices"][0]
        if isinstance(choice["message"], dict):
            return choice
    except (TypeError, KeyError, IndexError):
        pass
    raise ValueError("it is no chat completion (choices[0].message is missing).")


def _httpx() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise ImportError(
            "An LLM judge needs httpx, which is not installed: pip install steerlens[llm-judge]"
        ) from error
    return httpx


def _without(key: str, text: str) -> str:
    """The text without the key. A stand-in as short as "0" is no secret, and part of any answer."""
    return text.replace(key, "[key]") if len(key) >= SHORTEST_KEY else text


def _message(text: str) -> str:
    """What a server says of an error: the message in its JSON, or the beginning of its text."""
    try:
        said = json.loads(text)
    except ValueError:
        said = text
    for name in ("error", "message", "detail"):
        said = said.get(name, said) if isinstance(said, dict) else said
    return str(said)[:300] or "(no message)"


def _retry_after(header: str | None, otherwise: float) -> float:
    """Seconds to wait by a Retry-After header, which counts seconds or names a date."""
    if header is None:
        return otherwise
    if header.strip().isdecimal():
        return float(header)
    try:
        date = email.utils.parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return otherwise
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())
