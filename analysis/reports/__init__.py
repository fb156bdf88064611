"""Pages that put tables and figures together: comparisons, studies, the demonstration."""
