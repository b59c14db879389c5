"""Entry point of `python app.py`, which starts the server. The code is in `comfyui_workflow.app`."""

from comfyui_workflow.app import main

if __name__ == "__main__":
    main()
