"""Custom workflows: files of WORKFLOW_DIR that are run with a few named values."""
