"""Conversion of editor files into the graph that the editor itself would queue."""
