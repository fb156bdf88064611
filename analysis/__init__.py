"""Measure what steering does and draw it: tables first, then pictures."""
