"""The editor's own file, and the graph that the editor would queue of it."""
