"""An interactive view of prompts and steerings: live in a notebook, static in one HTML file."""
