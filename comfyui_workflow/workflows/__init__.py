"""What a workflow is. Pure: files and answers in, graphs and findings out."""
