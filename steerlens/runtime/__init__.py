"""Running a model with hooks: one forward pass on any backend, and steers on it."""
