"""Entry point of `python app.py`, which starts the server. The code is in `comfyui_workflow.app`."""

from comfyui_workflow.server.memory import collect_no_garbage

if __name__ == "__main__":
    collect_no_garbage()
    from comfyui_workflow.app import main

    main()
