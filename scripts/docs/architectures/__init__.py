"""The table of architectures in docs/architectures.md: built, tried and written by one command."""
