from comfyui_workflow.cli import main

main(prog_name="comfyui-workflow")
