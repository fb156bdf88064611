"""What a cell's computation may use: the bench's settings, its model, its tasks, other cells."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from steerlens.types import HookedModel

from .cells import Cell
from .spec import Spec
from .tasks import Task


class Maker(ABC):
    """A worker of a bench. No protocol: to check one at run time would load the model."""

    spec: Spec
    memory: dict[str, Any]

    @property
    @abstractmethod
    def model(self) -> HookedModel:
        """The model, loaded when it is first asked for."""

    @property
    @abstractmethod
    def tasks(self) -> dict[str, Task]:
        """The attributes by name."""

    @abstractmethod
    def result(self, cell: Cell) -> dict[str, Any]:
        """The result of a cell, made now unless it is there."""

    @abstractmethod
    def file(self, cell: Cell) -> Path:
        """Where a fit keeps its tensors."""
