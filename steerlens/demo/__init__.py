"""The demonstration model, and its frozen benchmark set."""
