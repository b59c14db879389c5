"""Order of prompts, two prompts with the same id, and the history."""

from typing import Any

from tests.sandbox.graphs import quick_graph
from tests.sandbox.running_comfyui import RunningComfyUI, wait_until

SAME = "00000000-0000-4000-8000-00000000000a"


def test_prompts_run_by_number_then_by_id(comfyui: RunningComfyUI) -> None:
    """The recorded order: later `front` prompts first; equal numbers in the order of ids, not of arrival."""
    comfyui.faults(hold=True, version="0.3.64")
    wishes: dict[str, dict[str, Any]] = {
        "n1": {},
        "n2": {},
        "front1": {"front": True},
        "front2": {"front": True},
        "num5": {"number": 5},
        "num-2.5": {"number": -2.5},
        "zzz-num0": {"number": 0},
        "aaa-num0": {"number": 0},
        "front_false": {"front": False},
        "num_str": {"number": "7"},
    }
    numbers = [
        comfyui.post("/prompt", {"prompt": quick_graph(), "prompt_id": name, **wish}).json()["number"]
        for name, wish in wishes.items()
    ]
    assert numbers == [0, 1, -2, -3, 5.0, -2.5, 0.0, 0.0, 4, 7.0]
    comfyui.faults(hold=False)
    wait_until(lambda: len(comfyui.get("/history").json()) == len(wishes))
    order = [
        "front2",
        "num-2.5",
        "front1",
        "aaa-num0",
        "n1",
        "zzz-num0",
        "n2",
        "front_false",
        "num5",
        "num_str",
    ]
    assert list(comfyui.get("/history").json()) == order


def test_one_id_twice_runs_twice_and_history_keeps_the_last(comfyui: RunningComfyUI) -> None:
    comfyui.faults(hold=True)
    for color in (1, 2):
        comfyui.submit(quick_graph(color=color), prompt_id=SAME)
    comfyui.faults(hold=False)
    wait_until(lambda: comfyui.get("/prompt").json()["exec_info"]["queue_remaining"] == 0)
    assert [line["prompt_id"] for line in comfyui.executions() if line["event"] == "start"] == [
        SAME,
        SAME,
    ]
    assert comfyui.get(f"/history/{SAME}").json()[SAME]["prompt"][2]["1"]["inputs"]["color"] == 2


def test_deleting_an_id_that_waits_twice_takes_one_away(comfyui: RunningComfyUI) -> None:
    comfyui.faults(hold=True)
    for color in (1, 2):
        comfyui.submit(quick_graph(color=color), prompt_id=SAME)
    comfyui.post("/queue", {"delete": [SAME]})
    assert len(comfyui.get("/queue").json()["queue_pending"]) == 1
    comfyui.post("/queue", {"delete": [SAME, "unknown"]})
    assert comfyui.get("/queue").json() == {"queue_running": [], "queue_pending": []}


def test_same_number_and_same_id_is_a_server_error_yet_both_are_queued(comfyui: RunningComfyUI) -> None:
    comfyui.faults(hold=True)
    responses = [
        comfyui.post("/prompt", {"prompt": quick_graph(color=color), "prompt_id": SAME, "number": 3})
        for color in (1, 2)
    ]
    assert [response.status_code for response in responses] == [200, 500]
    assert len(comfyui.get("/queue").json()["queue_pending"]) == 2


def test_an_older_version_makes_a_text_of_any_prompt_id(comfyui: RunningComfyUI) -> None:
    comfyui.faults(version="0.3.64")
    for given, taken in ((12345, "12345"), (None, "None"), ("a b/c?d", "a b/c?d")):
        assert comfyui.submit(quick_graph(), prompt_id=given) == taken
        comfyui.wait_for(taken)


def test_history_pages(comfyui: RunningComfyUI) -> None:
    comfyui.faults(version="0.3.64")
    for name in ("a", "b", "c"):
        comfyui.wait_for(comfyui.submit(quick_graph(), prompt_id=name))

    def names(query: str) -> list[str]:
        return list(comfyui.get(f"/history{query}").json())

    assert names("") == ["a", "b", "c"]
    assert names("?max_items=2") == ["b", "c"]
    assert names("?max_items=0") == []
    assert names("?max_items=1&offset=1") == ["b"]
    assert names("?offset=1") == ["b", "c"]
    comfyui.post("/history", {"delete": ["b"]})
    assert names("") == ["a", "c"]
    comfyui.post("/history", {"clear": True})
    assert names("") == []


def test_free_memory_forgets_the_results_and_unload_models_does_not(comfyui: RunningComfyUI) -> None:
    def cached_nodes() -> list[str]:
        entry = comfyui.wait_for(comfyui.submit(quick_graph()))
        return list(dict(entry["status"]["messages"])["execution_cached"]["nodes"])

    assert cached_nodes() == []
    comfyui.post("/free", {"unload_models": True})
    assert cached_nodes() == ["1", "2"]
    comfyui.post("/free", {"free_memory": True})
    assert cached_nodes() == []


def test_two_equal_output_nodes_share_one_file(comfyui: RunningComfyUI) -> None:
    graph = quick_graph()
    graph["3"] = graph["2"]
    outputs = comfyui.wait_for(comfyui.submit(graph))["outputs"]
    assert outputs["2"] == outputs["3"]
    assert len(list(comfyui.folders.output_dir.iterdir())) == 1


def test_extra_data_is_kept_without_the_keys_of_comfy_org(comfyui: RunningComfyUI) -> None:
    extra = {"orchestrator": {"job": 7}, "api_key_comfy_org": "secret"}
    entry = comfyui.wait_for(comfyui.submit(quick_graph(), extra_data=extra, client_id="me"))
    created_at = entry["prompt"][3].pop("create_time")
    assert isinstance(created_at, int)
    assert entry["prompt"][3] == {"orchestrator": {"job": 7}, "client_id": "me"}
    assert "secret" not in comfyui.execution_log.read_text()
