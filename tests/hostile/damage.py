"""Damage to files, made by generators: of bytes, of JSON, of the structure of safetensors."""

import json
import random
import struct
from collections.abc import Iterator
from typing import Any

DEEP = "[" * 20_000 + "]" * 20_000
WRONG: tuple[Any, ...] = (None, True, -1, 10**400, 1e308, "", "x", "\ud800", [], {}, [[]], {"a": 1})
"""What stands where something else should."""


def of_bytes(content: bytes, n: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """So many damages of any file: flipped bits, and what a bad disk or copy does."""
    drawn = random.Random(f"bytes {seed}")
    yield "empty", b""
    yield "twice", content + content
    yield "a byte more", content + b"\0"
    yield "zeros", bytes(len(content))
    yield "deep", DEEP.encode()
    yield "UTF-16", content.decode("latin-1").encode("utf-16")
    for number in range(n):
        kind = ("bit", "bit", "bit", "cut", "hole", "moved")[number % 6]
        place = drawn.randrange(len(content))
        changed = bytearray(content)
        if kind == "bit":
            changed[place] ^= 1 << drawn.randrange(8)
        elif kind == "cut":
            del changed[place:]
        elif kind == "hole":
            width = min(drawn.choice((1, 8, 512)), len(content) - place)
            changed[place : place + width] = bytes(width)
        else:
            del changed[place : place + drawn.choice((1, 3, 64))]
        yield f"{kind} at {place}", bytes(changed)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside a JSON value, and to itself."""
    yield at
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, one in inner:
            yield from places(one, (*at, key))


def of_json(value: Any, n: int, seed: int) -> Iterator[tuple[str, Any]]:
    """So many damages of a JSON value: something left out, added, or in another's place."""
    drawn, ways = random.Random(f"json {seed}"), list(places(value))
    for number in range(n):
        way = drawn.choice(ways)
        wrong = WRONG[number % len(WRONG)]
        copied = json.loads(json.dumps(value))
        if not way:
            yield f"all is {wrong!r:.20}", wrong
            continue
        inside = copied
        for key in way[:-1]:
            inside = inside[key]
        kind = ("other", "other", "gone", "added")[number % 4]
        if kind == "other":
            inside[way[-1]] = wrong
        elif kind == "gone":
            del inside[way[-1]]
        elif isinstance(inside, dict):
            inside["unheard of"] = wrong
        else:
            inside.append(wrong)
        yield f"{kind} {wrong!r:.20} at {way}", copied


def parted(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the numbers of a safetensors file."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: Any, numbers: bytes) -> bytes:
    """A safetensors file of a header and numbers."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def of_safetensors(content: bytes, n: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """So many damages of a safetensors file: its bytes, its header, what that says of them."""
    yield from of_bytes(content, n // 2, seed)
    yield "a long header", struct.pack("<Q", 2**62) + content[8:]
    yield "no header", struct.pack("<Q", 0) + content[8:]
    header, numbers = parted(content)
    for name, changed in of_json(header, n // 2, seed):
        yield name, joined(changed, numbers)
    names = [name for name in header if name != "__metadata__"]
    for name in names[:4]:
        yield (
            f"{name} renamed",
            joined({f"{k}x" * (k == name) or k: header[k] for k in header}, numbers),
        )
        turned = {**header, name: {**header[name], "shape": header[name]["shape"][::-1]}}
        if turned != header:
            yield f"{name} turned", joined(turned, numbers)
    if len(names) > 1 and header[names[0]] != header[names[1]]:
        first, second = names[:2]
        swapped = {**header, first: header[second], second: header[first]}
        yield "two swapped", joined(swapped, numbers)
