"""Activations to a direction at one site."""
