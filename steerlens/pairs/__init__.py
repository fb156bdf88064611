"""Data files that others made, as what fits take; and a look at pairs before anything is fitted."""
