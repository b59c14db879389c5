"""Jobs over runs: deadlines, times to live, outputs brought to a bucket, clients told of the end."""
