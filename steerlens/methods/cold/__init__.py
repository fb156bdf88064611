"""COLD-Steer (arXiv 2603.06495): one step of gradient descent on a few examples, by activations."""

from steerlens.methods.cold.finite_difference import ColdFD
from steerlens.methods.cold.kernel import ColdKernel

__all__ = ["ColdFD", "ColdKernel"]
