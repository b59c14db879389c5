"""runpod of PyPI, used as its own examples do: STEP ENDPOINT ARGUMENT... -> what it said, as JSON.

The base URL is in RUNPOD_ENDPOINT_BASE_URL, the key in RUNPOD_API_KEY, orders in the file orders.json.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import runpod
from runpod import AsyncioEndpoint, AsyncioJob
from runpod.http_client import ClientSession

ORDERS = json.loads(Path("orders.json").read_text())
LIMIT_S = 30


def whole(endpoint_id):
    endpoint = runpod.Endpoint(endpoint_id)
    job = endpoint.run({"input": ORDERS["painted"]})
    output = job.output(timeout=LIMIT_S)
    failed = endpoint.run(ORDERS["failing"])
    failed.output(timeout=LIMIT_S)
    return {
        "job": job._fetch_job(),
        "output": output,
        "streamed": list(job.stream()),
        "sync": endpoint.run_sync(ORDERS["painted"], timeout=LIMIT_S),
        "failed": failed._fetch_job(),
        "health": endpoint.health(),
    }


def queue(endpoint_id):
    """One executes, one is cancelled, one is purged; and then the first is cancelled, too."""
    endpoint = runpod.Endpoint(endpoint_id)
    jobs = [endpoint.run(ORDERS["slow"])]
    while jobs[0].status() == "IN_QUEUE":
        time.sleep(0.05)
    jobs += [endpoint.run(ORDERS["slow"]) for _ in range(2)]
    cancelled = jobs[1].cancel()
    before = endpoint.health()["jobs"]
    purged = endpoint.purge_queue()
    last = jobs[0].cancel()
    return {
        "cancelled": cancelled,
        "before": before,
        "purged": purged,
        "last": last,
        "statuses": [job.status() for job in jobs],
        "ids": [job.job_id for job in jobs],
    }


def order(endpoint_id, graph):
    job = runpod.Endpoint(endpoint_id).run(ORDERS[graph])
    output = job.output(timeout=LIMIT_S)
    return {"output": output, "job": job._fetch_job()}


def retry(endpoint_id, job_id):
    """It has no method for that, but one for any POST."""
    endpoint = runpod.Endpoint(endpoint_id)
    said = endpoint.rp_client.post(f"{endpoint_id}/retry/{job_id}", None)
    job = runpod.endpoint.Job(endpoint_id, job_id, endpoint.rp_client)
    return {"said": said, "output": job.output(timeout=LIMIT_S), "status": job.status()}


def invalid(endpoint_id):
    """Orders that the worker cannot execute."""
    endpoint = runpod.Endpoint(endpoint_id)
    jobs = [endpoint.run(each) for each in ORDERS["invalid"]]
    for job in jobs:
        job.output(timeout=LIMIT_S)
    return {"jobs": [job._fetch_job() for job in jobs], "sync": endpoint.run_sync(ORDERS["invalid"][0])}


def example(endpoint_id):
    """With every field that an order may have."""
    job = runpod.Endpoint(endpoint_id).run(ORDERS["example"])
    return {"output": job.output(timeout=LIMIT_S), "status": job.status()}


def refused(endpoint_id, base_url):
    """With a key that is none, and with its base URL told in the program."""
    runpod.endpoint_url_base = base_url
    endpoint = runpod.Endpoint(endpoint_id, api_key="wrong")
    try:
        endpoint.run(ORDERS["painted"])
    except RuntimeError as error:
        return {"error": str(error)}
    return {}


def in_asyncio(endpoint_id):
    return asyncio.run(_in_asyncio(endpoint_id))


async def _in_asyncio(endpoint_id):
    async with ClientSession() as session:
        endpoint = AsyncioEndpoint(endpoint_id, session)
        job: AsyncioJob = await endpoint.run(ORDERS["painted"])
        output = await job.output(timeout=LIMIT_S)
        streamed = [each async for each in job.stream()]
        slow = await endpoint.run(ORDERS["slow"])
        cancelled = await slow.cancel()
        return {
            "output": output,
            "status": await job.status(),
            "streamed": streamed,
            "cancelled": cancelled,
            "purged": await endpoint.purge_queue(),
            "health": await endpoint.health(),
        }


runpod.api_key = os.environ["RUNPOD_API_KEY"]
STEPS = {each.__name__: each for each in (whole, queue, order, retry, invalid, example, refused, in_asyncio)}
sys.stdout.write(json.dumps(STEPS[sys.argv[1]](*sys.argv[2:])))
