"""What methods are compared with that is none of its own: a grid, LoRA, a gradient step."""
