"""The report of one run: a self-contained HTML page for whoever has to decide on a model."""
