"""COLD-Steer: one step of gradient descent on a few examples, taken by the activations alone.

Sharma & Trivedi, "COLD-Steer: Steering Large Language Models via In-Context One-step Learning
Dynamics", arXiv 2603.06495:

    dZ(x) = -eta d/d eps Z(x; theta + eps g) at eps = 0            COLD-FD, g the mean gradient
    dZ(x) = -(eta / N) sum_i kappa(Z(x), Z(x_i)) dL_i/dZ(x_i)      COLD-Kernel
"""

from steerlens.methods.cold.finite_difference import ColdFD
from steerlens.methods.cold.kernel import ColdKernel

__all__ = ["ColdFD", "ColdKernel"]
