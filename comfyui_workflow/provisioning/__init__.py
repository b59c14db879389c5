"""What a workflow needs and an instance lacks: found in the workflow, and put there over SSH."""
