"""Many instances as one: the named ones, which of them a run goes to, when, and what they cost."""
