"""Make both editions of every unit from notebooks/source.

    python scripts/course/make_course.py               # the student's, in notebooks/: a second
    python scripts/course/make_course.py --check       # say which of these differ from the source
    python scripts/course/make_course.py --lecturer    # the solved ones, run, in build/course too

The lecturer's edition is not stored in the repository: it is made of the same source, its
outputs are megabytes, and who opens a file in notebooks/ shall find nothing solved.
"""

import argparse
import sys
import time
from pathlib import Path

import nbformat
from editions import lecturer, student
from nbclient import NotebookClient
from sources import ROOT, Unit, read_unit, sources

from steerlens.whole import write_whole

STUDENTS, LECTURERS = ROOT / "notebooks", ROOT / "build" / "course"
MOST_SECONDS = 900
BAR = {"application/vnd.jupyter.widget-view+json", "text/plain"}
"""What tqdm shows in a notebook; the explorer's widget brings its static page, text/html, too."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("units", nargs="*", help="numbers such as 02; without any: all")
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--lecturer", action="store_true", help="execute the solved edition")
    asked = parser.parse_args()
    units = [
        read_unit(path) for path in sources() if not asked.units or path.name[:2] in asked.units
    ]
    if not units:
        sys.exit(f"There is no unit {' or '.join(asked.units)} in notebooks/source.")
    if asked.check:
        stale = [unit.name for unit in units if not is_current(unit)]
        sys.exit(f"Not as in the source: {', '.join(stale)}. Say `make course`." if stale else 0)
    for unit in units:
        write_whole(students_file(unit), written(student(unit)).encode())
        if asked.lecturer:
            execute(unit)


def students_file(unit: Unit) -> Path:
    return STUDENTS / f"{unit.name}.ipynb"


def is_current(unit: Unit) -> bool:
    """Whether the student's edition in the repository is the one that the source makes."""
    file = students_file(unit)
    return file.exists() and file.read_text(encoding="utf-8") == written(student(unit))


def written(notebook: nbformat.NotebookNode) -> str:
    return nbformat.writes(notebook) + "\n"


def execute(unit: Unit) -> None:
    """Write the lecturer's edition with its outputs; an answer that is not right stops it."""
    notebook, started = lecturer(unit), time.perf_counter()
    where = {"metadata": {"path": str(STUDENTS)}}
    NotebookClient(notebook, timeout=MOST_SECONDS, record_timing=False, resources=where).execute()
    leave_out_bars(notebook)
    LECTURERS.mkdir(parents=True, exist_ok=True)
    write_whole(LECTURERS / f"{unit.name}.ipynb", written(notebook).encode())
    print(f"{unit.name}: {time.perf_counter() - started:.0f} s")


def leave_out_bars(notebook: nbformat.NotebookNode) -> None:
    """Take out progress bars, which vanish in JupyterLab, but not from a stored notebook."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if set(each.get("data", ())) != BAR]


if __name__ == "__main__":
    main()
