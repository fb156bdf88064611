"""Activations to a direction at one site."""

from steerlens.directions.means import difference_of_means, principal_direction, unit

__all__ = ["difference_of_means", "principal_direction", "unit"]
