import json
import multiprocessing
import os
import signal
import time

import pytest

from analysis.bench.cells import Busy, Cell, Cells, digest_of

CELL = Cell("made for this test", {"task": "pirate", "seed": 0})


def nothing():
    return {}


def test_a_digest_depends_on_kind_and_settings_and_not_on_their_order():
    same = Cell("made for this test", {"seed": 0, "task": "pirate"})
    assert CELL.digest == same.digest
    assert len({CELL, same}) == 1
    assert Cell("judge", CELL.settings).digest != CELL.digest
    assert Cell("made for this test", {"task": "pirate", "seed": 1}).digest != CELL.digest


def test_a_digest_stays_what_it_was():
    """Results of earlier versions are found by it."""
    assert digest_of({"b": [1, 2.5, None], "a": "é"}) == "d764fee2563da33e3d573347"


def test_a_cell_is_computed_once_and_its_file_tells_what_it_is(tmp_path):
    calls = []

    def compute(cell):
        calls.append(cell)
        return {"texts": ["a"]}

    for _ in range(2):
        found = Cells(tmp_path).make(CELL, compute, lambda: {"time": "now"})
        assert found == {"texts": ["a"]}
    assert calls == [CELL]
    (path,) = (tmp_path / "cells").iterdir()
    assert path.name == f"{CELL.digest}.json"
    whole = json.loads(path.read_text())
    assert Cell.of_json(whole["cell"]) == CELL
    assert whole["provenance"] == {"time": "now"}


def test_a_failing_computation_leaves_no_file(tmp_path):
    def compute(cell):
        raise RuntimeError("no memory")

    cells = Cells(tmp_path)
    with pytest.raises(RuntimeError):
        cells.make(CELL, compute, nothing)
    assert not cells.there(CELL)
    assert cells.make(CELL, lambda cell: {"x": 1}, nothing) == {"x": 1}


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 99}', b"\xff", b"[]"])
def test_a_damaged_file_is_told_with_what_to_do(tmp_path, content):
    cells = Cells(tmp_path)
    cells.path(CELL).parent.mkdir()
    cells.path(CELL).write_bytes(content)
    with pytest.raises(ValueError, match="Remove the file"):
        cells.read(CELL)


def _hold(folder, started):
    def compute(cell):
        started.set()
        time.sleep(60)
        return {}

    Cells(folder).make(CELL, compute, nothing)


def test_a_cell_under_way_is_busy_and_a_killed_worker_gives_it_back(tmp_path):
    spawning = multiprocessing.get_context("spawn")
    started = spawning.Event()
    worker = spawning.Process(target=_hold, args=(tmp_path, started))
    worker.start()
    assert started.wait(60)
    with pytest.raises(Busy):
        Cells(tmp_path).make(CELL, lambda cell: {}, nothing)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert Cells(tmp_path).make(CELL, lambda cell: {"x": 2}, nothing) == {"x": 2}
