"""A language model on any server with OpenAI-compatible chat completions: retries, pace, cache.

The key is read from the environment when a request is made, and kept nowhere. It goes to `base_url`
and no further: redirects are not followed, and what a server sends back is stripped of it before it
is shown or kept. What else holds of a request is in `transport`, with what a proxy may see.
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
from threading import Lock
from time import monotonic, sleep
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from steerlens.digests import require_signed, signed
from steerlens.parsing import harmless, parse_json
from steerlens.whole import write_whole

from .redaction import SHORTEST_KEY, Redaction
from .transport import NoReply, TooLong, client_for, httpx_or_advice, post, proxy_for

Choice: TypeAlias = dict[str, Any]
LONGEST_WAIT = 600.0
"""Seconds that a server may have one request wait, all its demands together."""
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
    nowhere; None is for a server that wants no key. `timeout_s` is for one request as a whole, from
    the connection to the last byte. `retries` follow a lost connection, a timeout and the statuses
    408, 429 and 5xx. `cache` is a folder of answers, one JSON file a request: what is in it is not
    asked again, and needs neither the key nor the network.

    Where the environment names a proxy (HTTP_PROXY and so on) it is used. For an https address it
    sees neither key nor texts. For an http address it would see both: with a key that is an error
    unless `proxy_may_see_key`.
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
    proxy_may_see_key: bool = False
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
        timed = 0 < self.timeout_s < math.inf
        positive = self.concurrency > 0 and timed and (limit is None or limit > 0)
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

        httpx_or_advice()
        key = self._key()
        headers, redact = {"Authorization": f"Bearer {key}"} if key else {}, Redaction(key)

        def fetch(body: dict[str, Any]) -> float:
            text = redact.text(self._post(client, body, redact))
            try:
                answer = redact.value(parse_json(text))
                value = read(_choice(answer))
            except (ValueError, RecursionError) as error:
                raise EndpointError(
                    f"{self.model} at {self.url} gave an answer that cannot be used: {error}\n"
                    f"The answer begins: {text[:200]!r}"
                ) from error
            self._keep(body, answer)
            return value

        with (
            client_for(self.url, headers, self.timeout_s) as client,
            ThreadPoolExecutor(self.concurrency) as pool,
        ):
            fetched = pool.map(fetch, bodies)  # the first error cancels what has not begun
            return list(tqdm(fetched, "judge", len(bodies), disable=not self.progress))

    def _post(self, client: Any, body: dict[str, Any], redact: Redaction) -> str:
        """The text of the answer, tried again where that may help; EndpointError without one."""
        content, complaint, demanded = json.dumps(body).encode(), "", 0.0
        for attempt in range(self.retries + 1):
            self._pace.wait(self.requests_per_minute)
            pause = 2.0 ** min(attempt, 6) * _jitter.uniform(0.5, 1.0)
            try:
                reply = post(client, self.url, content, self.timeout_s)
            except TooLong as error:
                raise EndpointError(
                    f"{self.model} at {self.url} gave an answer that cannot be used: {error}."
                ) from error
            except NoReply as error:
                complaint = harmless(redact.text(str(error)))
            else:
                if reply.status == 200:
                    return reply.text
                complaint = f"HTTP {reply.status}: {_message(reply.text, redact)}"
                if reply.status not in (408, 429) and reply.status < 500:
                    raise EndpointError(f"{self.model} at {self.url} refused: {complaint}")
                wanted = _retry_after(reply.retry_after)
                demanded += wanted or 0.0
                pause = pause if wanted is None else wanted
            if demanded > LONGEST_WAIT:
                raise EndpointError(
                    f"{self.model} at {self.url} asks to wait {demanded:.0f} s, which is too long. "
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
        self._require_unseen(key)
        return key

    def _require_unseen(self, key: str) -> None:
        """Raise ValueError where the address holds the key, or a proxy would read it."""
        if len(key) >= SHORTEST_KEY and Redaction(key).text(self.base_url) != self.base_url:
            raise ValueError(
                f"Endpoint(base_url=...) holds the key of {self.key_variable}, which would stand "
                "in errors and in the cache. Give the address without it."
            )
        in_clear = self.base_url.lower().startswith("http:")
        if in_clear and not self.proxy_may_see_key and proxy_for(self.url) is not None:
            raise ValueError(
                f"{self.url} is asked through a proxy (HTTP_PROXY or ALL_PROXY), which would see "
                f"the key of {self.key_variable}. Use an https address, name the host in "
                "NO_PROXY, or pass proxy_may_see_key=True."
            )

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
            kept = require_signed(
                parse_json(path.read_text(encoding="utf-8")), {"request", "answer"}, unsigned=True
            )
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
        kept = json.dumps(signed({"request": request, "answer": answer}))
        write_whole(path, kept.encode())


def _choice(answer: Any) -> Choice:
    try:
        choice = answer["choices"][0]
        if isinstance(choice["message"], dict):
            return choice
    except (TypeError, KeyError, IndexError):
        pass
    raise ValueError("it is no chat completion (choices[0].message is missing).")


def _message(text: str, redact: Redaction) -> str:
    """What a server says of an error: the message in its JSON, or the beginning of its text."""
    text = redact.text(text)
    try:
        said = redact.value(parse_json(text))
        for name in ("error", "message", "detail"):
            said = said.get(name, said) if isinstance(said, dict) else said
        said = str(said)
    except (ValueError, RecursionError):
        said = text
    return harmless(said[:300]) or "(no message)"


def _retry_after(header: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, which counts seconds or names a date."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        date = email.utils.parsedate_to_datetime(header)
    except (TypeError, ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())
