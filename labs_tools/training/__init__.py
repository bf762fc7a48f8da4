"""`labs train`: any method of the library from a settings file, without a notebook."""
