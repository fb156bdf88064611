"""Fitting steers: the loop, what is imitated, and the activations that are kept."""
