"""A process that runs command lines in children of its own, and kills them when it is told to.

The libraries are loaded once, so a kill costs what the command does and no more. A job is a line of
JSON on its input, {"arguments": [...], "after": seconds or null}; the answer {"code", "seconds"},
the code negative where the child was killed.
"""

import json
import os
import signal
import sys
import time


def run(arguments: list[str]) -> None:
    """A command, in a child, with what it prints thrown away."""
    from steerlens.cli import main

    nothing = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(nothing, handle)
    try:
        main(arguments)
    except SystemExit as stopped:
        os._exit(stopped.code if isinstance(stopped.code, int) else 0)
    os._exit(99)


def job(arguments: list[str], after: float | None) -> dict[str, float]:
    """Run a command; kill it after so many seconds."""
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        run(arguments)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return {"code": code, "seconds": time.monotonic() - begun}
        if after is not None and time.monotonic() - begun > after:
            os.kill(child, signal.SIGKILL)
            after = None
        time.sleep(0.002)


def serve() -> None:
    """Answer jobs until there are no more."""
    import torch

    torch.set_num_threads(1)
    import steerlens
    import steerlens.analysis

    steerlens.load("demo")
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(job(asked["arguments"], asked["after"])), flush=True)


if __name__ == "__main__":
    serve()
