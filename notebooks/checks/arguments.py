"""Whether a function left what it was given as it was: tensors, arrays, and lists and dicts of them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

KINDS = {Tensor: "tensor", np.ndarray: "array", list: "list", tuple: "tuple", dict: "dict"}


def copied(value: Any) -> Any:
    """A copy that writing into `value` does not change; what is trained is there to be moved."""
    if isinstance(value, Tensor):
        return value if value.is_leaf and value.requires_grad else value.clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if type(value) in (list, tuple):
        return type(value)(copied(each) for each in value)
    if type(value) is dict:
        return {name: copied(each) for name, each in value.items()}
    return value


def is_as_before(value: Any, before: Any) -> bool:
    """Whether nothing was written into a value since it was copied."""
    if isinstance(value, Tensor):
        is_tensor = isinstance(before, Tensor) and value.shape == before.shape
        return is_tensor and torch.equal(value, before)
    if isinstance(value, np.ndarray):
        return np.array_equal(value, before)
    if type(value) in (list, tuple, dict):
        if type(before) is not type(value) or len(before) != len(value):
            return False
        if type(value) is dict:
            return value.keys() == before.keys() and all(
                is_as_before(value[name], before[name]) for name in value
            )
        return all(is_as_before(*both) for both in zip(value, before, strict=True))
    return value is before


def put_back(value: Any, before: Any) -> None:
    """Give a value that was written into what it held before."""
    if isinstance(value, Tensor):
        with torch.no_grad():
            value.copy_(before)
    elif isinstance(value, (np.ndarray, list)):
        value[:] = before
    elif type(value) is dict:
        value.clear()
        value.update(before)
    elif type(value) is tuple:
        for each, kept in zip(value, before, strict=True):
            put_back(each, kept)


def named(value: Any) -> str:
    """What the value is to a reader: "tensor", or "dict ..., or into what is in it"."""
    kind = next(word for type_, word in KINDS.items() if isinstance(value, type_))
    inside = ", or into what is in it" if kind in ("list", "tuple", "dict") else ""
    return f"the {kind} that it was given{inside}"
