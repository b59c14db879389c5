"""`python app.py` serves. Everything else is in `comfyui_workflow.app`."""

from comfyui_workflow.app import main

if __name__ == "__main__":
    main()
