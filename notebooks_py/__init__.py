"""The lessons as modules: a function is written where it is taught, and imported from there."""
