"""The one writer of files: what it refuses, what it leaves behind, what many at once do to it."""

import ast
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steerlens import whole
from steerlens.whole import (
    DRAFT,
    clear_drafts,
    drafted,
    require_apart,
    require_place,
    write_together,
    write_whole,
)

ROOT = Path(__file__).parents[2]
WRITING = {"write_text", "write_bytes", "to_csv", "to_parquet", "write_html", "write_image"}
THROWN_AWAY = {
    "steerlens/models/backends.py": "a folder that lasts as long as a loading",
    "scripts/demo_model/export.py": "a draft of a folder, whose files then take their places",
    "scripts/supply/fuzz.py": "what a reader is tried on",
    "scripts/supply/mutants.py": "a copy of the repository",
    "scripts/supply/peak_memory.py": "a folder that lasts as long as a measurement",
}
"""Files that write others by hand, which nobody else reads."""
posix = pytest.mark.skipif(os.name != "posix", reason="devices, pipes and links of POSIX")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def a_link(path: Path) -> None:
    (path.parent / "goal").write_text("precious")
    path.symlink_to(path.parent / "goal")


def a_broken_link(path: Path) -> None:
    path.symlink_to(path.parent / "nothing")


def a_device(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root makes devices")
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no devices can be made here")


def a_read_only_file(path: Path) -> None:
    path.write_text("precious")
    path.chmod(0o444)


KINDS = {
    "it is a pipe": a_pipe,
    "it is a socket": a_socket,
    "it is a symbolic link": a_link,
    "it is a symbolic link ": a_broken_link,
    "it is a device": a_device,
    "it is read-only": a_read_only_file,
    "it is a folder": Path.mkdir,
}


@posix
@pytest.mark.parametrize("says", KINDS)
@pytest.mark.parametrize("write", [lambda path: write_whole(path, b"new"), require_place])
def test_what_is_no_regular_file_is_refused_and_stays(
    says: str, write: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "out"
    KINDS[says](Path("out"))
    before = path.lstat(), sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match=f"Cannot write .*out: {says.strip()}"):
        write(path)
    assert (path.lstat().st_mode, path.lstat().st_ino) == (before[0].st_mode, before[0].st_ino)
    assert sorted(tmp_path.iterdir()) == before[1]
    if "link" in says and (tmp_path / "goal").exists():
        assert (tmp_path / "goal").read_text() == "precious"


@posix
def test_a_target_that_turns_into_a_link_while_it_is_written_is_not_replaced(
    tmp_path: Path,
) -> None:
    path = tmp_path / "out"

    def write() -> None:
        with drafted(path) as draft:
            draft.write_bytes(b"new")
            path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic link"):
        write()
    assert path.is_symlink()
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["a" * 255, "ü" * 127, "ein name\nmit zeilen", "-", "a.draft"])
def test_any_name_that_a_file_can_have_can_be_written(name: str, tmp_path: Path) -> None:
    assert write_whole(tmp_path / name, b"x").read_bytes() == b"x"
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_a_name_that_no_file_can_have_is_one_sentence(tmp_path: Path) -> None:
    for name in ("a\0b", "a" * 256):
        for write in (lambda path: write_whole(path, b"x"), require_place):
            with pytest.raises(OSError, match="Cannot write"):
                write(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_private_file_stays_private_and_a_new_one_has_the_usual_rights(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "out", b"one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~whole._umask()
    path.chmod(0o600)
    write_whole(path, b"two")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_looking_at_a_place_makes_nothing(tmp_path: Path) -> None:
    require_place(tmp_path / "new" / "out")
    require_place(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="its folder does not exist"):
        require_place(tmp_path / "no" / "where" / "out")


def test_of_several_files_none_is_written_where_one_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(OSError, match="it is a folder"):
        write_together({tmp_path / name: b"new" for name in "abc"})
    assert (tmp_path / "a").read_bytes() == b"old"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "c"]


SAME = {
    "the same": lambda folder: folder / "in",
    "another spelling": lambda folder: folder / "." / "sub" / ".." / "in",
    "a hard link": lambda folder: os.link(folder / "in", folder / "other") or folder / "other",
    "a link": lambda folder: (folder / "other").symlink_to(folder / "in") or folder / "other",
    "through a linked folder": lambda folder: (
        (folder / "way").symlink_to(folder) or folder / "way" / "in"
    ),
}


@posix
@pytest.mark.parametrize("kind", SAME)
def test_an_output_that_is_an_input_is_refused_however_it_is_spelt(
    kind: str, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "in").write_text("precious")
    other = SAME[kind](tmp_path)
    with pytest.raises(ValueError, match=r"--out .* is the file of --pairs, which would be over"):
        require_apart({"--out": [other]}, {"--pairs": [tmp_path / "x", tmp_path / "in"]})
    with pytest.raises(ValueError, match="--checkpoint and --out are one file"):
        require_apart({"--out": [other], "--checkpoint": [tmp_path / "in"]}, {})
    require_apart({"--out": [tmp_path / "out"]}, {"--pairs": [tmp_path / "in"]})


# -- Drafts of the dead ----------------------------------------------------------------------------

WRITE = """
import sys, time
from pathlib import Path
from steerlens.whole import drafted
with drafted(Path(sys.argv[1])) as draft:
    draft.write_bytes(b"half")
    print("begun", flush=True)
    time.sleep(60)
"""


@posix
def test_the_draft_of_a_killed_process_is_cleared_by_the_next_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "out"
    writing = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE, path], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(2)
    ]
    for one in writing:
        assert one.stdout is not None
        assert one.stdout.readline() == "begun\n"
    dead, alive = writing
    dead.kill()
    dead.communicate()
    (tmp_path / ".mine.draft").write_text("a user's own")
    (tmp_path / ".x.zz-notanumber-y.draft").write_text("a user's own")
    assert len(list(tmp_path.glob("*.draft"))) + len(list(tmp_path.glob(".*.draft"))) >= 4
    gone = clear_drafts(tmp_path, again=True)
    assert [f"-{dead.pid}-" in name for name in gone] == [True]
    left = sorted(one.name for one in tmp_path.iterdir())
    assert len(left) == 3
    assert sum(f"-{alive.pid}-" in name for name in left) == 1
    alive.send_signal(signal.SIGKILL)
    alive.communicate()
    whole._cleared.clear()
    write_whole(path, b"whole")
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        ".mine.draft",
        ".x.zz-notanumber-y.draft",
        "out",
    ]


@posix
def test_drafts_of_an_earlier_process_with_our_number_and_old_ones_of_others_go(
    tmp_path: Path,
) -> None:
    host, me = whole._host(), os.getpid()
    ours = tmp_path / f".a.{host}-{me}-earlier{DRAFT}"
    young = tmp_path / f".a.00000000-1-x{DRAFT}"
    old = tmp_path / f".b.00000000-1-x{DRAFT}"
    for one in (ours, young, old):
        one.write_text("")
    os.utime(old, (time.time() - 2 * whole.STALE,) * 2)
    assert set(clear_drafts(tmp_path, again=True)) == {ours.name, old.name}
    assert [one.name for one in tmp_path.iterdir()] == [young.name]


RACE = """
import json, sys
from pathlib import Path
from steerlens.whole import write_whole
number, folder = int(sys.argv[1]), Path(sys.argv[2])
for turn in range(200):
    text = json.dumps({"by": number, "turn": turn, "filling": str(number) * (1 + 997 * number)})
    write_whole(folder / f"{turn % 4}.json", text.encode())
"""


def test_many_processes_at_the_same_files_publish_whole_ones_only(tmp_path: Path) -> None:
    import json

    racing = [
        subprocess.Popen([sys.executable, "-c", RACE, str(number), tmp_path], cwd=ROOT)
        for number in range(4)
    ]
    seen = 0
    while any(one.poll() is None for one in racing):
        for path in tmp_path.glob("*.json"):
            found = json.loads(path.read_text())
            assert found["filling"] == str(found["by"]) * (1 + 997 * found["by"])
            seen += 1
    assert [one.returncode for one in racing] == [0, 0, 0, 0]
    assert seen > 50
    assert sorted(one.name for one in tmp_path.iterdir()) == [f"{i}.json" for i in range(4)]


# -- Nobody writes otherwise -----------------------------------------------------------------------

OTHERWISE = re.compile(
    r"os\.replace\(|\.write_text\(|\.write_bytes\(|\.to_csv\([^i]|\.part\b[^i]|\bopen\([^)]*[\"'][wax]b?"
    r"|torch\.save\(|(?<!def )save_file\("
)
ALLOWED = {
    "steerlens/whole.py": "the writer",
    "steerlens/cli/doctor.py": "",
    "steerlens/models/backends.py": "a temporary folder of its own",
    "steerlens/models/gguf.py": "a folder, made under a lock and renamed as a whole",
    "steerlens/digests.py": "into a draft",
    "steerlens/interchange/adapter.py": "into the draft of a folder",
    "steerlens/interchange/folders.py": "a folder, renamed as a whole",
    "steerlens/interchange/lm_eval_steered.py": "into memory, and from there whole",
    "steerlens/interchange/opening.py": "the words of a message",
}


def test_no_module_writes_files_in_a_way_of_its_own() -> None:
    found = {}
    for path in sorted([*(ROOT / "steerlens").rglob("*.py"), *(ROOT / "analysis").rglob("*.py")]):
        lines = [line for line in path.read_text().splitlines() if OTHERWISE.search(line)]
        name = path.relative_to(ROOT).as_posix()
        if lines and name not in ALLOWED:
            found[name] = lines
    assert found == {}
    for name, why in ALLOWED.items():
        if why == "into a draft":
            text = (ROOT / name).read_text()
            assert len(re.findall(r"with drafted\(", text)) == len(re.findall(OTHERWISE, text))


def _by_hand(text: str) -> list[str]:
    """What writes a file in another way than `steerlens.whole` does, and not into a draft."""
    found = []
    for call in ast.walk(ast.parse(text)):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        name, of = call.func.attr, ast.unparse(call.func.value)
        table = (
            name.startswith("to_")
            and not call.args
            and "path_or_buf" not in {keyword.arg for keyword in call.keywords}
        )
        if name in WRITING and not table and not of.startswith(("draft", "(draft")):
            found.append(f"{call.lineno}: {ast.unparse(call):.80}")
    return found


def test_what_writes_by_hand_is_seen() -> None:
    assert _by_hand("place.write_text('a')") == ["1: place.write_text('a')"]
    assert _by_hand("table.to_csv(place, index=False)\ntable.to_csv(path_or_buf=place)") != []
    assert _by_hand("write_whole(place, b''); (draft / 'a').write_text('a')") == []
    assert _by_hand("text = table.to_csv(index=False)") == []


def test_every_file_is_written_in_the_one_way() -> None:
    """Here, in the scripts and in the benchmarks."""
    folders = ("steerlens", "analysis", "scripts", "benchmarks")
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    found = {
        str(file.relative_to(ROOT)): _by_hand(file.read_text(encoding="utf-8")) for file in files
    }
    assert len(files) > 300
    writing = {name: calls for name, calls in found.items() if calls}
    assert writing.pop("steerlens/whole.py")
    assert {name: calls for name, calls in writing.items() if name not in THROWN_AWAY} == {}
    assert set(writing) == set(THROWN_AWAY)
