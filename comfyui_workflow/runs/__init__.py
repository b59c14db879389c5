"""What a run is. Pure: no I/O, no threads, no clock, no HTTP."""
