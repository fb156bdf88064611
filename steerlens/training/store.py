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
from steerlens.prompts import Encoded
from steerlens.scopes import Scope
from steerlens.sites import Site
from steerlens.steering import Steering
from steerlens.types import HookedModel

FLOAT16 = torch.finfo(torch.float16).max


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
        too_large = 4 * shape[0] * shape[1] * len(sites) > limit
        folder = Path(tempfile.mkdtemp(prefix="steerlens-")) if too_large else None

        def empty(number: int) -> np.ndarray:
            if folder is None:
                return np.empty(shape, dtype=np.float32)
            file = folder / f"{number}.npy"
            return np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)

        arrays = {site: empty(number) for number, site in enumerate(sites)}
        made = cls(offsets, arrays, folder)  # from here on its folder goes when it does
        for piece in capture_stream(model, rows, sites, scope=scope, steering=steering):
            for row in piece.row.unique().tolist():
                for site in sites:
                    made._keep(row, site, piece.of(row, site).float())
        return made

    def _keep(self, row: int, site: Site, values: Float[Tensor, "token d_model"]) -> None:
        if self.folder is not None and float(values.abs().max()) > FLOAT16:
            raise ValueError(
                f"Activations at {site} reach {float(values.abs().max()):.3g}, beyond float16, "
                "in which they are kept on disk. Raise `memory`, so that they stay in memory."
            )
        self.arrays[site][self.offsets[row] : self.offsets[row + 1]] = values.numpy()

    def of_row(self, row: int, site: Site) -> Float[Tensor, "token d_model"]:
        """One row's activations at a site, float32."""
        part = self.arrays[site][self.offsets[row] : self.offsets[row + 1]]
        return torch.from_numpy(np.array(part, dtype=np.float32))
