"""`@steer` makes a class the steer of a method: a value that is checked, saved and shown.

    @steer
    class Shift:
        \"\"\"Add `v` to every position.\"\"\"

        v: Direction

        def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
            h, v = activation, self.v.to(activation)
            return h + v

The class becomes a frozen dataclass that `steering.save` can write. When one is made, arrays, lists
and whole numbers given for its tensors become tensors of floats; the tensors must be finite, and
axes of the same name (`rank`, `d_model`) equally long, in all fields together; then its own
`__post_init__` runs, if it has one; and its floats must be finite. `d_model` is the length of the
axis of that name, so that a steer is refused at a model of another width. The repr shows shapes.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from steerlens.checks import described, require_finite
from steerlens.kinds import require_fields
from steerlens.parsing import short
from steerlens.saving import saveable
from steerlens.types import converting, finite

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:  # typing has it from Python 3.11 on, and at run time it would do nothing

    def dataclass_transform(
        frozen_default: bool, eq_default: bool, field_specifiers: tuple[object, ...]
    ) -> Callable[[Any], Any]:
        """Tells type checkers that a decorator makes dataclasses; the decorator as it is."""
        return lambda decorator: decorator


Class = TypeVar("Class", bound=type)
SHOWN = 4
"""Of tuples that are longer, the repr shows the length alone."""


@dataclass_transform(
    frozen_default=True, eq_default=False, field_specifiers=(dataclasses.field, dataclasses.Field)
)
def steer(cls: Class) -> Class:
    """Make `cls` a steer: frozen, checked, saveable, with `d_model` and a short repr."""
    axes, floats, optional = _axes(cls), _floats(cls), _optional(cls)
    own_check: Callable[[Any], None] | None = getattr(cls, "__post_init__", None)

    def check(self: Any) -> None:
        _require_tensors(self, axes, optional)
        require_consistent(self, axes)
        for name in axes:
            _require_finite_field(self, name)
        require_fields(self, but=(*axes, *floats))
        for name in floats:
            _require_number_field(self, name)
        if own_check is not None:
            own_check(self)
        for name in floats:  # last: a class may have more to say of its numbers
            _require_finite_field(self, name)
            value = getattr(self, name)
            if value is not None and not isinstance(value, int | float):
                object.__setattr__(self, name, float(value))  # NumPy's numbers go in no file

    made: Any = cls
    made.__post_init__ = check
    if made.__repr__ is object.__repr__:
        made.__repr__ = shown
    width = next((name for name, names in axes.items() if "d_model" in names), None)
    if width is not None and not hasattr(cls, "d_model"):
        made.d_model = _length(width, axes[width].index("d_model"))
    plain = dataclasses.dataclass(frozen=True, eq=False, repr=False)(made)
    as_tensors = {name: partial(as_floats, n_axes=len(names)) for name, names in axes.items()}
    return saveable(converting(**as_tensors)(plain))


def as_floats(value: Any, n_axes: int = 0) -> Any:
    """A tensor of floats made of an array, a list or whole numbers; what cannot be, as it is.

    Where one axis is asked for, a row [1, d] or a column [d, 1] is the vector that it holds. NumPy
    and lists count in float64; a tensor of theirs is in float32, as models are.
    """
    if isinstance(value, np.ndarray | Sequence) and not isinstance(value, str) and len(value):
        several = isinstance(value, Sequence) and all(isinstance(one, Tensor) for one in value)
        try:
            value = torch.stack(list(value)) if several else torch.tensor(np.asarray(value))
        except (TypeError, ValueError, RuntimeError):  # of unequal lengths, or no numbers
            return value
        value = value.float() if value.dtype == torch.float64 and not several else value
    if not isinstance(value, Tensor) or value.dtype == torch.bool:
        return value
    value = value if value.is_floating_point() else value.float()
    alone = n_axes == 1 and value.ndim > 1 and value.numel() == max(value.shape)
    return value.reshape(-1) if alone else value


def as_vectors(value: Any, n_axes: int = 0) -> Tensor:
    """The same; TypeError for what holds no numbers, ValueError for nothing."""
    column = hasattr(value, "__array__") and not isinstance(value, Tensor)  # of a table
    made = as_floats(np.asarray(value) if column else value, n_axes)
    if isinstance(made, Sequence | np.ndarray) and len(made) == 0:
        made = torch.empty(0)
    if not isinstance(made, Tensor) or made.dtype == torch.bool:
        raise TypeError(f"A direction is a vector of numbers; found {described(value)}.")
    if made.numel() == 0:
        raise ValueError("A direction is a vector of numbers; found one that is empty.")
    return made


def shown(steer: Any) -> str:
    """Class and fields, tensors by their shape: TransformerLens asks for it at every pass."""
    fields = [item.name for item in dataclasses.fields(steer) if item.repr]
    values = ", ".join(f"{name}={_short(getattr(steer, name))}" for name in fields)
    return f"{type(steer).__name__}({values})"


def _short(value: object) -> str:
    if isinstance(value, Tensor):
        return str(list(value.shape))
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        inside = f"{len(value)} values" if len(value) > SHOWN else ", ".join(map(_short, value))
        return f"({inside})"
    return repr(value)


# -- Checks ----------------------------------------------------------------------------------------


def require_consistent(steer: Any, axes: Mapping[str, tuple[str, ...]]) -> None:
    """Raise ValueError unless every tensor has its axes, those of one name equally long."""
    tensors = {name: getattr(steer, name) for name in axes if getattr(steer, name) is not None}
    lengths: dict[str, int] = {}
    if all(_fits(tensor, axes[name], lengths) for name, tensor in tensors.items()):
        return
    needed = ", ".join(f"{name} [{', '.join(axes[name])}]" for name in tensors if axes[name])
    given = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
    raise ValueError(
        f"{type(steer).__name__} needs tensors of the shapes {needed}, where one name is one "
        f"length; found {given}."
    )


def _require_tensors(steer: Any, names: Iterable[str], optional: Collection[str]) -> None:
    """Raise TypeError unless every field that is to be a tensor is one."""
    for name in names:
        value = getattr(steer, name)
        if not isinstance(value, Tensor) and not (value is None and name in optional):
            raise TypeError(
                f"{type(steer).__name__}'s {name} is a tensor; found {type(value).__name__}. "
                "torch.as_tensor makes one of a list or an array."
            )


def _fits(tensor: Tensor, axes: tuple[str, ...], lengths: dict[str, int]) -> bool:
    """Whether a tensor has these axes; their lengths are noted in `lengths`."""
    if not axes:
        return True
    if tensor.ndim != len(axes):
        return False
    pairs = zip(axes, tensor.shape, strict=True)
    return all(lengths.setdefault(axis, size) == size for axis, size in pairs)


def _require_number_field(steer: Any, name: str) -> None:
    """Raise TypeError if what should be a number is none."""
    value = getattr(steer, name)
    if value is None and getattr(type(steer), name, 0) is None:
        return  # its default
    if not isinstance(value, Tensor | Real) or getattr(value, "ndim", 0) > 0:
        raise TypeError(f"{type(steer).__name__}'s {name} is a number; found {described(value)}.")


def _require_finite_field(steer: Any, name: str) -> None:
    """Raise ValueError if a tensor or a number of the steer is not finite."""
    value = getattr(steer, name)
    if isinstance(value, Tensor):
        require_finite(value.detach(), f"{type(steer).__name__}'s {name}")
    elif value is not None and not finite(value):
        raise ValueError(
            f"{type(steer).__name__}'s {name}: {short(value)} is NaN or infinite. It must be a "
            "finite number."
        )


# -- What the annotations say ----------------------------------------------------------------------


def _annotations(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except NameError as error:
        raise TypeError(
            f"@steer cannot read the fields of {cls.__name__} ({error}). Define the class, and "
            "import what its fields are annotated with, at the top of a module."
        ) from error


def _axes(cls: type) -> dict[str, tuple[str, ...]]:
    """The axes of every field that is a tensor; none where their number is left open."""
    axes: dict[str, tuple[str, ...]] = {}
    for name, annotation in _annotations(cls).items():
        union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
        for choice in typing.get_args(annotation) if union else (annotation,):
            if choice is Tensor or hasattr(choice, "dim_str"):
                names = tuple(getattr(choice, "dim_str", "").split())
                axes[name] = names if all(axis.isidentifier() for axis in names) else ()
    return axes


def _optional(cls: type) -> frozenset[str]:
    """The fields that may be None."""
    hints = _annotations(cls).items()
    return frozenset(name for name, hint in hints if type(None) in typing.get_args(hint))


def _floats(cls: type) -> tuple[str, ...]:
    return tuple(name for name, annotation in _annotations(cls).items() if annotation is float)


def _length(field: str, axis: int) -> property:
    """The property that reads the length of an axis off a field."""
    return property(
        lambda steer: getattr(steer, field).shape[axis],
        doc="The width of the residual stream that the steer belongs to.",
    )
