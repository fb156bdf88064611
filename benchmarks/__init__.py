"""Timings of steerlens against plain hooks, transformers and TransformerLens; see README.md."""
