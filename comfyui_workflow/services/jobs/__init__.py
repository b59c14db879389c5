"""Jobs on top of runs: deadlines, time to live, upload of outputs to a bucket, notification of clients."""
