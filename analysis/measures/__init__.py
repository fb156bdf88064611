"""What steering does to activations and to text, as tidy tables."""
