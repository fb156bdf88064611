"""Any data file as a table, whatever it is written in.

JSON Lines, JSON, CSV and TSV, Parquet, and data sets that Hugging Face `datasets` saved to disk.
Nothing is unpickled, and nothing larger than `table.MOST_BYTES` is read.
"""

from collections.abc import Sequence
from pathlib import Path

from steerlens.pairs.arrow import read_folder, read_parquet
from steerlens.pairs.table import Table, name_of, require_size
from steerlens.pairs.text_tables import table_of_text
from steerlens.parsing import STANDARD_INPUT, bytes_of_input, text_of_input

MAGIC = {
    b"PAR1": "Parquet",
    b"\x1f\x8b": "a gzip archive",
    b"PK\x03\x04": "a ZIP archive (or a .xlsx or .pt file)",
    b"ARROW1": "a bare Arrow file",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"\x80\x04": "a pickle",
    b"\x80\x02": "a pickle",
    b"GGUF": "a GGUF file",
    b"SQLite format 3": "a SQLite database",
}


def read_table(
    path: Path, *, columns: Sequence[str | int] | None = None, split: str | None = None
) -> Table:
    """The table of a file or folder; ValueError or OSError that says what is wrong where.

    `columns` are two columns of a CSV file, by name, or by number where it has no header; `split`
    is that of a data set with several.
    """
    if path == STANDARD_INPUT or not path.is_dir():
        if path != STANDARD_INPUT and not path.exists():
            raise FileNotFoundError(f"There is no file {path}. It should hold pairs or questions.")
        if split is not None:
            raise ValueError(f"split={split!r} is for a saved data set; {name_of(path)} is a file.")
        return _of_file(path, columns)
    return read_folder(path, split)


def _of_file(path: Path, columns: Sequence[str | int] | None) -> Table:
    if path != STANDARD_INPUT and path.is_file():
        require_size(path.stat().st_size, name_of(path))
    content = bytes_of_input(path)
    require_size(len(content), name_of(path))
    kind = next((name for magic, name in MAGIC.items() if content.startswith(magic)), None)
    if kind == "Parquet":
        return read_parquet(content, name_of(path))
    if kind is not None:
        raise ValueError(
            f"{name_of(path)} is {kind}, which is not read here. Give text (JSON Lines, JSON, CSV, "
            "TSV), Parquet, or a folder of datasets' save_to_disk."
        )
    text = text_of_input(path)
    if not text.strip():
        raise ValueError(f"{name_of(path)} is empty. It should hold pairs or questions.")
    return table_of_text(path, text, columns)
