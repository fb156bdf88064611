"""Methods x attributes x seeds on a model: planned, run by any number of workers, collected."""
