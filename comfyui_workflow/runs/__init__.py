"""The data model of runs. Pure: no I/O, no threads, no clock, no HTTP."""
