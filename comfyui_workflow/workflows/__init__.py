"""Reading, converting and checking of workflows. Pure functions: no network and no disk; files and responses
are arguments, graphs and findings are results."""
