"""Activations that are read many times: in memory, or in float16 files where they are many."""

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.activations import capture_stream
from steerlens.kinds import require_fields
from steerlens.precision import wide, wide_dtype
from steerlens.prompts import Encoded
from steerlens.scopes import Scope, everywhere
from steerlens.sites import Site
from steerlens.steering import Steering
from steerlens.types import HookedModel

FLOAT16 = torch.finfo(torch.float16).max
MEMORY = 2 * 2**30


@dataclass(frozen=True)
class Storage:
    """What a fit keeps from step to step, and where.

    Beyond `memory` bytes activations are float16 files. `reuse=False` recomputes what never
    changes, to check that it does not.
    """

    memory: int = MEMORY
    reuse: bool = True

    def __post_init__(self) -> None:
        require_fields(self)
        if self.memory < 0:
            raise ValueError(f"memory is a number of bytes, 0 or more; found {self.memory}.")


@dataclass(eq=False)
class Store:
    """Activations of many rows of text: one [token, d_model] array for each site."""

    offsets: Int[np.ndarray, " rows_and_end"]
    arrays: dict[Site, np.ndarray]
    folder: Path | None = None

    def __post_init__(self) -> None:
        if self.folder is not None:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    @classmethod
    def of(
        cls,
        model: HookedModel,
        rows: Sequence[Encoded],
        sites: Sequence[Site],
        scope: Scope,
        counts: Sequence[int],
        limit: int,
        steering: Steering | None = None,
    ) -> "Store":
        """Capture `rows` on the tokens of `scope`, of which row i has `counts[i]`."""
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        shape = (int(offsets[-1]), model.cfg.d_model)
        dtype = np.float64 if wide_dtype(model) == torch.float64 else np.float32
        too_large = np.dtype(dtype).itemsize * shape[0] * shape[1] * len(sites) > limit
        folder = Path(tempfile.mkdtemp(prefix="steerlens-")) if too_large else None

        def empty(number: int) -> np.ndarray:
            if folder is None:
                return np.empty(shape, dtype=dtype)
            file = folder / f"{number}.npy"
            return np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)

        arrays = {site: empty(number) for number, site in enumerate(sites)}
        store = cls(offsets, arrays, folder)  # from here on its folder goes when it does
        for piece in capture_stream(model, rows, sites, scope=scope, steering=steering):
            for row in piece.row.unique().tolist():
                for site in sites:
                    store._keep(row, site, wide(piece.of(row, site)))
        return store

    def _keep(self, row: int, site: Site, values: Float[Tensor, "token d_model"]) -> None:
        if self.folder is not None and float(values.abs().max()) > FLOAT16:
            raise ValueError(
                f"Activations at {site} reach {float(values.abs().max()):.3g}, beyond float16, "
                "in which they are kept on disk. Raise `memory`, so that they stay in memory."
            )
        self.arrays[site][self.offsets[row] : self.offsets[row + 1]] = values.numpy()

    def of_row(self, row: int, site: Site) -> Float[Tensor, "token d_model"]:
        """One row's activations at a site; float32, or float64 where they are kept so."""
        part = self.arrays[site][self.offsets[row] : self.offsets[row + 1]]
        return wide(torch.from_numpy(np.array(part)))


@dataclass(frozen=True, eq=False)
class Entry:
    """Where every pass enters: above the block whose output no step changes.

    `store` has that output, `block` is the first block that runs anew.
    """

    block: int
    store: Store
    lengths: tuple[int, ...]

    @classmethod
    def of(
        cls, model: HookedModel, rows: Sequence[Encoded], sites: Sequence[Site], storage: Storage
    ) -> "Entry | None":
        """The entry of rows steered at `sites`; None where every pass begins at the embedding."""
        lowest = min(site.layer for site in sites)
        # A steer on a block's output acts on the entry itself; any other inside the block above.
        post = all(site.stream == "resid_post" for site in sites if site.layer == lowest)
        block = lowest + 1 if post else lowest
        if block == 0 or not storage.reuse:
            return None
        lengths = tuple(len(row.ids) for row in rows)
        site = Site(block - 1)
        store = Store.of(model, rows, [site], everywhere, lengths, storage.memory)
        return cls(block, store, lengths)

    @property
    def site(self) -> Site:
        """What is kept: the output of the block below."""
        return Site(self.block - 1)

    def at(self, chosen: Sequence[int], width: int) -> Float[Tensor, "batch pos d_model"]:
        """The entry of these rows, padded on the right to `width` tokens."""
        kept = [self.store.of_row(i, self.site) for i in chosen]
        entry = kept[0].new_zeros((len(chosen), width, kept[0].shape[1]))
        for number, (i, values) in enumerate(zip(chosen, kept, strict=True)):
            entry[number, : self.lengths[i]] = values
        return entry
