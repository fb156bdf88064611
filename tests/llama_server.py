"""llama-server in this process, by its own command line: what it answers to one completion.

The wheel xllamacpp has the server as a class, whose parameters leave control vectors out. The
parser of llama.cpp's command lines is exported beside it, and fills the same structure. Run as a
program, since what is wrong in C++ ends the process:

    echo '{"arguments": ["--model", "m.gguf"], "body": {"prompt": [1, 2]}}' | python llama_server.py
"""

import ctypes as c
import json
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

PARSE = "_Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E"
"""common_params_parse(int, char **, common_params &, llama_example, void (*)(int, char **))."""
SERVER = 12
"""LLAMA_EXAMPLE_SERVER of the pinned release: whose flags are known."""
BEFORE = 16
"""Bytes of the Python object before the structure."""
HERE = ["--host", "127.0.0.1", "--port", "0", "--threads", "1", "--threads-batch", "1"]
"""On the loopback alone, at a port that is free."""
EXACT = ["--flash-attn", "off", "--cache-type-k", "f32", "--cache-type-v", "f32", "--fit", "off"]


def parameters(arguments: list[str]) -> Any:
    """What llama-server makes of its command line."""
    import xllamacpp

    made = xllamacpp.CommonParams()
    made.n_predict, made.n_ctx, made.n_batch = 11, 22, 33
    begins = list((c.c_int32 * 3).from_address(id(made) + BEFORE))
    assert begins == [11, 22, 33], "not the pinned release"
    made = xllamacpp.CommonParams()
    (library,) = Path(xllamacpp.__file__).parent.glob("*.so")
    parse = getattr(c.CDLL(str(library)), PARSE)
    parse.restype = c.c_bool
    parse.argtypes = [c.c_int, c.c_void_p, c.c_void_p, c.c_int, c.c_void_p]
    words = ["llama-server", *HERE, *EXACT, "--ctx-size", "256", "--parallel", "1", *arguments]
    given = (c.c_char_p * (len(words) + 1))(*[word.encode() for word in words], None)
    assert parse(len(words), given, id(made) + BEFORE, SERVER, None), f"refused: {arguments}"
    return made


def main() -> None:
    """Serve, ask once, print the answer."""
    import xllamacpp

    asked = json.load(sys.stdin)
    server = xllamacpp.Server(parameters(asked["arguments"]))
    request = Request(
        f"{server.listening_address}/completion",
        json.dumps(asked["body"]).encode(),
        {"Content-Type": "application/json"},
    )
    with urlopen(request, timeout=120) as answer:
        print(f"\n{json.dumps(json.load(answer))}")


if __name__ == "__main__":
    main()
