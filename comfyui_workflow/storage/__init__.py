"""Places outside to which outputs are brought."""
