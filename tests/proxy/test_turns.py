"""Many prompts that come at once share a few connections to ComfyUI."""

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from comfyui_workflow.proxy import turns
from comfyui_workflow.proxy.turns import LEAST_TURNS, Turns, turn_count
from tests.proxy.setting import Setting
from tests.sandbox.graphs import quick_graph


def test_many_prompts_at_once_need_few_connections(setting: Setting) -> None:
    """More prompts than turns; each is submitted once. One more connection is that of the ping."""
    setting.comfyui.faults(hold=True)
    bodies = [
        {"prompt": quick_graph(), "client_id": "me", "prompt_id": str(uuid.UUID(int=n))} for n in range(60)
    ]
    with ThreadPoolExecutor(60) as threads:
        answers = list(threads.map(lambda body: setting.post("/prompt", body).json(), bodies))
    assert [each["prompt_id"] for each in answers] == [body["prompt_id"] for body in bodies]
    assert setting.relay.connection_count <= LEAST_TURNS + 1
    queue = setting.comfyui.get("/queue").json()
    assert sorted(item[1] for item in queue["queue_pending"]) == sorted(body["prompt_id"] for body in bodies)


def test_a_slow_prompt_delays_others_only_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        free = Turns(1)
        async with free.taken():
            monkeypatch.setattr(turns, "PATIENCE_S", 0.01)
            async with free.taken():
                pass
            monkeypatch.setattr(turns, "PATIENCE_S", 1000.0)
            next_one = asyncio.create_task(use(free))
            await asyncio.sleep(0)
            assert not next_one.done()
        await next_one
        async with free.taken():  # nothing was given back twice, or kept
            waiting = asyncio.create_task(use(free))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
        await use(free)

    async def use(free: Turns) -> None:
        async with free.taken():
            pass

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_distant_instance_gets_more_prompts_at_once() -> None:
    assert turn_count(0.001) == LEAST_TURNS
    assert turn_count(0.08) == 80
