"""Parquet files, and the folders that Hugging Face `datasets` writes by `save_to_disk`.

Both are read by pyarrow; `datasets` itself is not needed.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steerlens.pairs.table import Table, require_size
from steerlens.parsing import few, parse_json, short, text_of_input


def _pyarrow(what: str) -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError(
            f"{what} needs pyarrow, which is not installed: pip install pyarrow. Or write the data "
            "as JSON Lines, which needs nothing."
        ) from error
    return pyarrow


def read_parquet(content: bytes, name: str) -> Table:
    """The rows of a Parquet file; ValueError where it is damaged, or too large when unpacked."""
    pyarrow = _pyarrow(f"{name} (Parquet)")
    import pyarrow.parquet as parquet

    try:
        file = parquet.ParquetFile(io.BytesIO(content))
        groups = range(file.metadata.num_row_groups)
        unpacked = sum(file.metadata.row_group(i).total_byte_size for i in groups)
        require_size(unpacked, f"{name}, unpacked,")
        rows = file.read().to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{name} is damaged, or no Parquet file ({error}).") from error
    return _of_rows(rows, name, "Parquet")


def _of_rows(rows: list[dict[str, Any]], name: str, container: str) -> Table:
    if not rows:
        raise ValueError(f"{name} has no rows.")
    return Table(name, container, "row", tuple(rows), tuple(range(1, len(rows) + 1)))


def read_folder(path: Path, split: str | None) -> Table:
    """The rows of a saved data set; ValueError where the folder is none."""
    if (path / "dataset_dict.json").is_file():
        splits = _listed(path / "dataset_dict.json", "splits")
        if split is None and len(splits) != 1:
            raise ValueError(
                f"{path} is a data set with the splits {few(splits, 12)}. Name one: split=..., or "
                f"give the folder {path / (splits[0] if splits else 'train')}."
            )
        split = splits[0] if split is None else split
        if split not in splits:
            raise ValueError(f"{path} has no split {short(split)}. It has {few(splits, 12)}.")
        return read_folder(_inside(path, split), None)
    if split is not None:
        raise ValueError(f"{path} has no splits, so split={split!r} names none. Leave it out.")
    if not (path / "state.json").is_file():
        found = sorted(file.name for file in path.iterdir())
        raise ValueError(
            f"{path} is a folder, and no data set that datasets' save_to_disk wrote (state.json is "
            f"missing; found {few(found, 8) or 'nothing'}). Give one of its files."
        )
    return _of_rows(list(_arrow_rows(path)), str(path), "a saved data set")


def _arrow_rows(path: Path) -> Iterator[dict[str, Any]]:
    pyarrow = _pyarrow(f"{path} (Arrow)")
    state = _object(path / "state.json")
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise ValueError(
            f"{path} is a selection of a data set by indices. Write it out first: "
            "dataset.flatten_indices().save_to_disk(folder)."
        )
    files = [_inside(path, name) for name in _listed(path / "state.json", "_data_files")]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{path} lacks its file {file.name}, which state.json names.")
    require_size(sum(file.stat().st_size for file in files), str(path))
    for file in files:
        try:
            with file.open("rb") as stream, pyarrow.ipc.open_stream(stream) as reader:
                yield from reader.read_all().to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{file} is damaged, or no Arrow stream ({error}).") from error


def _object(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(text_of_input(path))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}).") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: {short(found)} is no object.")
    return found


def _listed(path: Path, key: str) -> list[str]:
    """Names in a file of a saved data set."""
    given = _object(path).get(key)
    listed = given if isinstance(given, list) else []
    names = [one.get("filename") if isinstance(one, dict) else one for one in listed]
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} is damaged: {key!r} is {short(given)}, and no list of names.")
    return [str(name) for name in names]


def _inside(folder: Path, name: str) -> Path:
    """A file of the folder; ValueError for a name that leads out of it."""
    if Path(name).name != name or name in ("", ".", ".."):
        raise ValueError(f"{folder} names {short(name)}, which is no file of its own.")
    return folder / name
