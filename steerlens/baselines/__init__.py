"""What the methods are compared with that is no method of its own: a grid search, and LoRA."""
