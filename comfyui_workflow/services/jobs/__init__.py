"""Jobs over runs, as RunPod has them: deadlines, outputs brought to a bucket, clients told of the end."""
