"""Routes about the machine."""

from pathlib import Path

from tests.sandbox.running_comfyui import RunningComfyUI


def test_system_stats_say_that_this_is_a_sandbox(comfyui: RunningComfyUI) -> None:
    stats = comfyui.get("/system_stats").json()
    assert stats["system"]["comfyui_version"] == "0.33.0"
    assert stats["devices"][0]["name"] == "cpu (sandbox: no GPU)"
    argv = stats["system"]["argv"]
    assert argv[argv.index("--output-directory") + 1] == str(comfyui.folders.output_dir)


def test_object_info_has_the_recorded_shape(comfyui: RunningComfyUI) -> None:
    info = comfyui.get("/object_info/SaveImage").json()["SaveImage"]
    assert info["input_order"]["required"] == ["images", "filename_prefix"]
    assert info["input"]["required"]["images"][0] == "IMAGE"
    assert info["output_node"] is True
    assert (info["output"], info["output_is_list"], info["output_name"]) == (["IMAGE"], [False], ["images"])
    assert comfyui.get("/object_info/Nope").json() == {}
    assert comfyui.get("/object_info").json()["SaveImage"] == info


def test_the_directories_can_be_told_from_the_models_folders(comfyui: RunningComfyUI) -> None:
    paths = comfyui.get("/internal/folder_paths").json()
    assert Path(paths["checkpoints"][1]) == comfyui.folders.output_dir / "checkpoints"
    (comfyui.folders.output_dir / "a.png").write_bytes(b"")
    assert comfyui.get("/internal/files/output").json() == ["a.png"]
    assert comfyui.get("/internal/files/nope").status_code == 400


def test_what_else_a_client_may_ask(comfyui: RunningComfyUI) -> None:
    assert comfyui.get("/features").json()["supports_preview_metadata"] is True
    assert "checkpoints" in comfyui.get("/models").json()
    assert comfyui.get("/models/checkpoints").json() == []
    assert comfyui.get("/models/nope").status_code == 404
    assert comfyui.get("/embeddings").json() == []
    assert comfyui.get("/extensions").status_code == 200
    assert comfyui.get("/api/prompt").json() == {"exec_info": {"queue_remaining": 0}}
