"""Several instances as one: every run once, wherever there is a place for it."""

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.integration.graphs import failing, loaded, node, painted, slow
from tests.scheduling.machines import Json, Machines, machines

TOO_MANY = {"1.color": list(range(200)), "1.width": list(range(100))}


def until(condition: Callable[[], bool], timeout_s: float = 60, story: Callable[[], object] = str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, story()
        time.sleep(0.05)


def until_finished(fleet: Machines, batch_id: str) -> Json:
    until(
        lambda: fleet.progress(batch_id)["status"] in ("completed", "failed", "cancelled"),
        story=lambda: f"{fleet.progress(batch_id)}\n{fleet.server.log()[-5000:]}",
    )
    return fleet.progress(batch_id)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Machines]:
    with machines(tmp_path, (0.5, 0.3, None), move_after_s=1, connection_idle_s=60) as made:
        yield made


def test_sixty_runs_on_three_instances_are_all_done_once(fleet: Machines) -> None:
    graph = slow(1, steps=2, seconds_per_step=0.1)
    batch = fleet.order({"ssh_connection": "any", "workflow": graph, "matrix": {"1.color": list(range(60))}})
    done = until_finished(fleet, batch)
    assert (done["status"], done["counts"]["completed"], done["progress_percent"]) == ("completed", 60, 100.0)
    executed = fleet.executions()
    runs = fleet.runs(batch)
    assert sum(executed.values(), Counter[str]()) == Counter(run["prompt_id"] for run in runs)
    assert all(Counter(run["instance"] for run in runs)[name] == len(executed[name]) for name in executed)
    assert all(len(prompts) >= 10 for prompts in executed.values())  # none of them stood idle
    assert [run["inputs"] for run in runs] == [{"1.color": color} for color in range(60)]
    first = fleet.server.progress(runs[0]["workflow_id"])
    assert (first["instance"], first["instance_reason"]) == ("gpu1", "cheapest (0.3 an hour)")
    files = {output["local_path"] for output in fleet.server.get(f"/batch/{batch}/outputs")["outputs"]}
    assert len(files) == 60
    assert all(Path(path).stat().st_size for path in files)
    assert done["gpu_seconds"] >= 60 * 0.2
    assert 0 < done["cost"] < done["gpu_seconds"] * 0.5 / 3600


def test_an_instance_that_dies_takes_nothing_along_but_what_ran_there(fleet: Machines) -> None:
    graph = slow(1, steps=3, seconds_per_step=0.1)
    batch = fleet.order({"ssh_connection": "any", "workflow": graph, "matrix": {"1.color": list(range(30))}})
    until(lambda: fleet.progress(batch)["counts"]["completed"] >= 6)
    fleet.sandboxes["gpu1"].kill()
    done = until_finished(fleet, batch)
    assert done["counts"]["completed"] == 30
    executed = sum(fleet.executions().values(), Counter[str]())
    assert max(executed.values()) == 1
    prompts = {run["prompt_id"] for run in fleet.runs(batch)}
    assert prompts <= set(executed)
    assert len(set(executed) - prompts) <= 3  # what was running there, or not yet fetched from there
    assert fleet.instance("gpu1")["state"]["reachability"] == "unreachable"


def test_a_prompt_that_was_given_up_is_dropped_when_its_instance_is_back(tmp_path: Path) -> None:
    with machines(tmp_path, (0.1, 9), move_after_s=0.5, connection_idle_s=60) as fleet:
        fleet.change("gpu1", enabled=False)
        fleet.sandboxes["gpu0"].faults(hold=True)
        colors = {"1.color": [1, 2]}
        batch = fleet.order({"ssh_connection": "any", "workflow": painted(), "matrix": colors})
        until(lambda: [run["prompt_id"] for run in fleet.runs(batch)].count(None) == 0)
        fleet.sandboxes["gpu0"].faults(refuse_ssh_s=6, cut_ssh=True)
        fleet.change("gpu1", enabled=True)
        assert until_finished(fleet, batch)["counts"]["completed"] == 2
        assert {run["instance"] for run in fleet.runs(batch)} == {"gpu1"}
        queue_url = f"{fleet.sandboxes['gpu0'].comfyui_url}/queue"
        until(lambda: not requests.get(queue_url, timeout=10).json()["queue_pending"])
        fleet.sandboxes["gpu0"].faults(hold=False)
        assert fleet.server.until_finished(fleet.server.execute("gpu0", painted(3)))["status"] == "completed"
        assert len(fleet.executions()["gpu0"]) == 1


def test_a_connection_is_kept_until_it_is_let_go_also_after_a_restart(tmp_path: Path) -> None:
    with machines(tmp_path, (None,)) as fleet:

        def is_seen(reachability: str) -> bool:
            return bool(fleet.instance("gpu0")["state"]["reachability"] == reachability)

        assert requests.post(f"{fleet.instances_url}/gpu0/connect", timeout=10).status_code == 200
        until(lambda: is_seen("ready"))
        fleet.server.kill()
        fleet.server.start()
        until(lambda: is_seen("ready"))
        assert requests.post(f"{fleet.instances_url}/gpu0/disconnect", timeout=10).status_code == 200
        until(lambda: is_seen("unknown"))
        assert fleet.instance("gpu0")["keep_connected"] is False


def test_what_an_instance_has_loaded_is_forgotten_with_its_memory(tmp_path: Path) -> None:
    graph = painted() | {"4": node("CheckpointLoaderSimple", ckpt_name="sandbox-stand-in.safetensors")}
    with machines(tmp_path, (0.1, 9), connection_idle_s=60) as fleet:

        def run(where: str) -> tuple[str, str]:
            until(lambda: fleet.instance("gpu0")["state"]["reachability"] == "ready")
            done = fleet.server.until_finished(fleet.server.execute(where, graph))
            return done["instance"], done["instance_reason"]

        for name in fleet.sandboxes:
            requests.post(f"{fleet.instances_url}/{name}/connect", timeout=10)
        warm = ("gpu1", "has sandbox-stand-in.safetensors loaded")
        run("gpu1")
        assert run("any") == warm
        fleet.sandboxes["gpu1"].faults(cut_ssh=True)
        until(lambda: fleet.instance("gpu1")["state"]["reachability"] == "ready")
        assert run("any") == warm  # the way there was cut: ComfyUI is as it was
        assert requests.post(f"{fleet.instances_url}/gpu1/free", timeout=10).status_code == 200
        assert run("any") == ("gpu0", "cheapest (0.1 an hour)")
        assert requests.post(f"{fleet.instances_url}/gpu0/free", timeout=10).status_code == 200
        run("gpu1")
        assert run("any") == warm
        for act, seen in (("kill", "unreachable"), ("start", "ready")):
            getattr(fleet.sandboxes["gpu1"], act)()
            until(lambda seen=seen: fleet.instance("gpu1")["state"]["reachability"] == seen)  # type: ignore[misc]
        assert run("any") == ("gpu0", "cheapest (0.1 an hour)")


def test_a_server_that_dies_in_a_batch_goes_on_with_it(fleet: Machines) -> None:
    graph = slow(1, steps=2, seconds_per_step=0.1)
    batch = fleet.order({"ssh_connection": "any", "workflow": graph, "matrix": {"1.color": list(range(20))}})
    until(lambda: fleet.progress(batch)["counts"]["completed"] >= 4)
    fleet.server.kill()
    fleet.server.start()
    assert until_finished(fleet, batch)["counts"]["completed"] == 20
    executed = sum(fleet.executions().values(), Counter[str]())
    assert executed == Counter(run["prompt_id"] for run in fleet.runs(batch))


def test_a_batch_stops_at_an_error_when_it_is_told_to(fleet: Machines) -> None:
    runs = [{"ssh_connection": "gpu0", "workflow": failing()}]
    runs += [{"ssh_connection": "gpu0", "workflow": slow(n, steps=5)} for n in range(12)]
    runs = [{**run, "output_dir": str(fleet.server.output_dir)} for run in runs]
    batch = fleet.order({"runs": runs, "on_error": "stop", "batch_name": "night"})
    done = until_finished(fleet, batch)
    counts = done["counts"]
    assert (done["status"], done["batch_name"], counts["failed"]) == ("failed", "night", 1)
    assert counts["cancelled"] >= 6
    assert counts["completed"] + counts["cancelled"] == 12
    assert done["failures"][0]["error_message"].startswith("Node execution failed: it broke")
    told = {run["error_message"] for run in fleet.runs(batch) if run["status"] == "cancelled"}
    assert told == {f"Not started: the run {done['failures'][0]['workflow_id']} of the same batch has failed"}


def test_a_batch_is_cancelled_and_staggered(fleet: Machines) -> None:
    batch = fleet.order(
        {"ssh_connection": "any", "workflow": painted(), "rows": [{}] * 5, "stagger_s": 3600, "priority": 3}
    )
    until(lambda: fleet.progress(batch)["counts"]["completed"] == 1)
    assert [run["status"] for run in fleet.runs(batch)] == ["completed"] + ["queued"] * 4
    assert fleet.server.post(f"/batch/{batch}/cancel").json()["cancelled"] == 4
    assert until_finished(fleet, batch)["counts"]["cancelled"] == 4
    assert fleet.server.post(f"/batch/{batch}/cancel").status_code == 409
    assert fleet.server.post(f"/batch/{batch}/retry").status_code == 409


def test_each_run_of_a_matrix_brings_its_own_pictures(fleet: Machines, tmp_path: Path) -> None:
    from PIL import Image  # noqa: PLC0415

    pictures = []
    for name, color in (("red.png", "red"), ("blue.png", "blue")):
        Image.new("RGB", (8, 8), color).save(tmp_path / name)
        pictures.append(str(tmp_path / name))
    batch = fleet.order(
        {
            "ssh_connection": "any",
            "workflow": loaded("red.png"),
            "input_images": pictures,
            "matrix": {"1.image": ["red.png", "blue.png"]},
        }
    )
    assert until_finished(fleet, batch)["counts"]["completed"] == 2
    outputs = fleet.server.get(f"/batch/{batch}/outputs")["outputs"]
    colors = [Image.open(output["local_path"]).convert("RGB").getpixel((0, 0)) for output in outputs]
    assert colors == [(0, 255, 255), (255, 255, 0)]


def test_a_model_that_one_instance_lacks_is_looked_for_on_the_others(fleet: Machines) -> None:
    graph = painted()
    graph["2"] = {"class_type": "ThisNodeIsNowhere", "inputs": {"image": ["1", 0]}}
    run = fleet.server.execute("any", graph)
    failed = fleet.server.until_finished(run)
    assert (failed["status"], failed["error_code"]) == ("failed", "invalid_workflow")
    told = "No instance can run the workflow. gpu0, gpu1, gpu2: The instance cannot run the workflow: "
    assert failed["error_message"].startswith(told)
    assert failed["error_message"].count("The instance cannot run") == 1


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "Request body is required"),
        ({"runs": []}, "The batch has no runs in it"),
        ({"runs": [{"ssh_connection": "gpu0"}]}, "runs[0]: workflow_file is required"),
        ({"runs": [1]}, "runs must be a list of objects"),
        ({"runs": [], "rows": []}, "one of them"),
        ({"runs": [{}], "on_eror": "stop"}, "on_eror is not a field of a batch; the nearest is on_error. "),
        ({"runs": [{}], "ssh_connection": "any"}, "ssh_connection cannot be combined with runs"),
        ({"runs": [{"ssh_connection": "any", "rows": [{}]}]}, "runs[0]: rows is not a field of a run"),
        ({"ssh_connection": "any", "workflow": painted()}, "one of them"),
        ({"ssh_connection": "any", "workflow": painted(), "matrix": {}}, "no runs"),
        ({"ssh_connection": "any", "workflow": painted(), "matrix": {"1.color": 3}}, "matrix must be"),
        ({"ssh_connection": "any", "workflow": painted(), "rows": [{"9.x": 1}]}, 'run 0: inputs: "9.x"'),
        (
            {"ssh_connection": "any", "workflow": painted(), "matrix": TOO_MANY},
            "at most 10000 runs, and this one has 20000",
        ),
        ({"ssh_connection": "any", "workflow": painted(), "rows": [{}], "stagger_s": -1}, "stagger_s"),
        ({"ssh_connection": "any", "workflow": painted(), "rows": [{}], "on_error": "x"}, "on_error"),
        ({"ssh_connection": "any", "workflow": painted(), "rows": [{}], "priority": 1001}, "priority"),
    ],
)  # fmt: skip
def test_a_batch_that_cannot_be_ordered_is_refused_whole(server: object, body: Json, sentence: str) -> None:
    answer = server.post("/batch", body)  # type: ignore[attr-defined]
    assert answer.status_code == 400
    assert sentence in answer.json()["message"]


def test_comfyui_of_an_instance_is_at_its_local_port(fleet: Machines) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    fleet.change("gpu0", local_port=port)
    until(lambda: (fleet.instance("gpu0")["local_port_state"] or {}).get("is_listening", False))
    url = f"http://127.0.0.1:{port}"
    prompt_id = requests.post(f"{url}/prompt", json={"prompt": painted()}, timeout=20).json()["prompt_id"]
    until(lambda: prompt_id in requests.get(f"{url}/history/{prompt_id}", timeout=10).json())
    fleet.sandboxes["gpu0"].faults(cut_ssh=True)
    until(lambda: requests.get(f"{url}/prompt", timeout=30).status_code == 200)
    fleet.sandboxes["gpu0"].kill()
    answer = requests.get(f"{url}/prompt", timeout=30)
    assert answer.status_code == 503
    assert "gpu0 cannot be reached" in answer.json()["error"]["message"]
    fleet.change("gpu0", local_port=None)
    until(lambda: fleet.instance("gpu0")["local_port_state"] is None)
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/prompt", timeout=5)


def test_what_a_night_costs(fleet: Machines) -> None:
    body = {"ssh_connection": "gpu1", "workflow": slow(1, steps=5, seconds_per_step=0.1)}
    batch = fleet.order({**body, "matrix": {"1.color": [1, 2]}})
    done = until_finished(fleet, batch)
    costs = requests.get(f"{fleet.instances_url}/costs", timeout=10).json()
    (gpu1,) = [each for each in costs["instances"] if each["name"] == "gpu1"]
    assert (gpu1["runs"], gpu1["gpu_seconds"]) == (2, done["gpu_seconds"])
    assert gpu1["run_cost"] == pytest.approx(gpu1["gpu_seconds"] * 0.3 / 3600, abs=1e-6)
    assert (costs["total"]["runs"], costs["total"]["run_cost"]) == (2, gpu1["run_cost"])
    assert 1.0 <= gpu1["gpu_seconds"] < 5
    assert requests.delete(f"{fleet.instances_url}/gpu1", timeout=10).status_code == 200
    again = {"name": "gpu1", "ssh_connection": "ssh root@192.0.2.1", "price_per_hour": 900}
    assert requests.post(fleet.instances_url, json=again, timeout=10).status_code == 201
    fleet.server.kill()
    fleet.server.start()
    after = requests.get(f"{fleet.instances_url}/costs", timeout=10).json()
    (gpu1,) = [each for each in after["instances"] if each["name"] == "gpu1"]
    assert (gpu1["runs"], gpu1["run_cost"], gpu1["connected_s"], gpu1["idle_cost"]) == (0, None, 0, 0)
    assert (after["total"]["runs"], after["total"]["run_cost"]) == (2, costs["total"]["run_cost"])
    assert after["removed"]["runs"] == 2


def test_the_inputs_of_the_next_run_are_brought_while_one_runs(tmp_path: Path) -> None:
    from PIL import Image  # noqa: PLC0415

    Image.new("RGB", (8, 8), "red").save(tmp_path / "next.png")
    with machines(tmp_path, (None,), prompts_per_instance=1) as fleet:
        server, sandbox = fleet.server, fleet.sandboxes["gpu0"]
        first = server.execute("gpu0", slow(1, steps=600))
        server.until(first, lambda p: p["status"] == "executing")
        second = server.execute("gpu0", loaded("next.png"), input_images=[str(tmp_path / "next.png")])
        ready = server.until(second, lambda p: "Everything is ready" in str(p["message"]))
        assert (ready["queue_position"], ready["prompt_id"]) == (1, None)
        assert (sandbox.input_dir / "next.png").exists()
        assert server.progress(first)["status"] == "executing"
        urgent = server.execute("gpu0", painted(3), priority=1)
        server.until(urgent, lambda p: "Everything is ready" in str(p["message"]))
        assert server.progress(second)["queue_position"] == 2
        server.post(f"/{first}/cancel")
        done = [server.until_finished(each) for each in (urgent, second)]
        assert [each["status"] for each in done] == ["completed", "completed"]
        order = [entry["prompt_id"] for entry in sandbox.executions()[1:]]
        assert order == [each["prompt_id"] for each in done]


def test_a_workflow_is_validated_on_an_instance_by_its_name_or_on_any(fleet: Machines) -> None:
    body = {"workflow": painted()}
    answer = fleet.server.post("/validate", {**body, "ssh_connection": "GPU1"}).json()
    assert (answer["valid"], answer["instance"]) == (True, "gpu1")
    fleet.sandboxes["gpu0"].kill()
    until(lambda: fleet.instance("gpu1")["state"]["reachability"] != "connecting")
    requests.post(f"{fleet.instances_url}/gpu2/connect", timeout=10)
    until(lambda: fleet.instance("gpu2")["state"]["reachability"] == "ready")
    answer = fleet.server.post("/validate", {**body, "ssh_connection": "any"}).json()
    assert (answer["valid"], answer["instance"]) == (True, "gpu2")
    fleet.change("gpu2", host_key="SHA256:" + "A" * 43)
    refused = fleet.server.post("/validate", {**body, "ssh_connection": "gpu2"})
    assert (refused.status_code, refused.json()["code"]) == (502, "host_key_refused")
    slip = fleet.server.post("/execute", {**body, "ssh_connection": "gpu9"})
    assert slip.status_code == 400
    assert 'No instance is called "gpu9": there are gpu0, gpu1, gpu2' in slip.json()["message"]
    nobody = fleet.server.post("/validate", {**body, "ssh_connection": "any:nobody"})
    assert (nobody.status_code, nobody.json()["code"]) == (400, "invalid_request")
