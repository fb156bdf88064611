"""Vectors of strangers: no code of theirs is run, and no file takes more than it is worth."""

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import damage
import numpy as np
import pytest
import torch
from test_foreign import EACH, ROWS, SteeringVector, gguf_of, saved
from tiny_models import D_MODEL

import steerlens as sl
from steerlens.interchange import opening


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("kind", ["torch", "pickle", "legacy"])
def test_no_code_is_run(kind, gpt2, tmp_path):
    path, touched = tmp_path / "v.pt", tmp_path / "touched"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Evil(touched)))
    else:
        torch.save(Evil(touched), path, _use_new_zipfile_serialization=kind == "torch")
    with pytest.raises(ValueError, match=r"any code.*torch\.save\(\{f\"blocks"):
        sl.load_steering(path, gpt2, sites=1)
    assert not touched.exists()


def test_the_class_in_a_pickle_is_named_and_its_object_is_read(gpt2, tmp_path):
    made = SteeringVector({1: ROWS[1]})
    path = saved(tmp_path / "v.pt", made)
    with pytest.raises(ValueError, match=r"test_foreign\.SteeringVector"):
        sl.load_steering(path, gpt2)
    assert sl.load_steering(made, gpt2).sites == (sl.Site(1),)


def test_a_tensor_larger_than_its_file_is_refused(gpt2, tmp_path):
    path = saved(tmp_path / "v.pt", torch.ones(1).expand(10**12, D_MODEL))
    assert path.stat().st_size < 10_000
    with pytest.raises(ValueError, match="larger than the numbers in the file"):
        sl.load_steering(path, gpt2, sites=1)


@pytest.mark.parametrize(
    "value",
    [torch.eye(D_MODEL).to_sparse(), ROWS[0].bool(), ROWS[0] + 1j],
    ids=["sparse", "bool", "complex"],
)
def test_tensors_of_other_kinds_are_refused(value, gpt2, tmp_path):
    with pytest.raises(ValueError, match=r"Save it as a plain one|floating-point"):
        sl.load_steering(saved(tmp_path / "v.pt", value), gpt2, sites=1)


def test_packed_files_are_no_bombs(gpt2, tmp_path):
    path = tmp_path / "v.npz"
    np.savez_compressed(path, **{"blocks.1.hook_out": np.zeros((10**7,), np.float32)})
    with pytest.raises(ValueError, match="unpacks to"):
        sl.load_steering(path, gpt2)
    with zipfile.ZipFile(tmp_path / "v.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("v/data.pkl", bytes(10**7))
    with pytest.raises(ValueError, match="compressed zip"):
        sl.load_steering(tmp_path / "v.pt", gpt2)


def test_arrays_of_objects_are_refused(gpt2, tmp_path):
    np.savez(tmp_path / "v.npz", a=np.array([Evil(tmp_path / "touched")], dtype=object))
    with pytest.raises(ValueError, match="kind object"):
        sl.load_steering(tmp_path / "v.npz", gpt2)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("n", [2**40, 2**63])
@pytest.mark.parametrize("kind", [0, 8, 9])
def test_a_gguf_header_that_claims_more_than_the_file_ends_at_once(n, kind, gpt2, tmp_path):
    name = b"some.list"
    field = struct.pack("<Q", len(name)) + name + struct.pack("<IIQ", 9, kind, n)
    path = tmp_path / "v.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + field + bytes(100))
    with pytest.raises(ValueError, match="damaged"):
        sl.load_steering(path, gpt2)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, n, n))
    with pytest.raises(ValueError, match="damaged"):
        sl.load_steering(path, gpt2)


def test_large_files_are_not_opened(gpt2, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "LARGEST", 100)
    with pytest.raises(ValueError, match="files of vectors have"):
        sl.load_steering(gguf_of(tmp_path), gpt2)


DAMAGED: dict[str, Any] = {
    name: (make, given)
    for name, (make, given, _) in EACH.items()
    if name in ("GGUF", "CAA", "persona vectors", "AxBench", "lm-eval", "hook names, npz")
    or "safetensors" in name
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_an_error_or_a_steering(name, gpt2, tmp_path):
    make, given = DAMAGED[name]
    path = make(tmp_path)
    content, errors = path.read_bytes(), []
    for _, changed in damage.of_bytes(content, 60, seed=len(name)):
        path.write_bytes(changed)
        try:
            sl.load_steering(path, gpt2, **given)
        except (ValueError, OSError) as error:
            errors.append(str(error))
    assert len(errors) > 20
    unnamed = [error for error in errors if path.name not in error]
    assert not unnamed
