"""Records of jobs: records of earlier releases are read correctly."""

import json
from typing import Any

import pytest

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.job import JobStatus, decode_job, encode_job

RUN = "comfyui_workflow_1700000000_0123456789abcdef"
EARLIER: dict[str, Any] = {
    "job_id": f"sync-{RUN}",
    "run_id": RUN,
    "endpoint": "any",
    "created_at": "2026-01-02T03:04:05Z",
    "expires_at": "2026-01-03T03:04:05Z",
    "webhook": "https://client.example/hook",
    "execution_timeout_s": 600.0,
    "bucket": None,
    "fetches": [],
    "verdict": "TIMED_OUT",
    "judged_at": "2026-01-02T04:04:05Z",
    "uploads": [{"number": 0, "url": "https://bucket.example/a.png", "error": None}],
    "final": "TIMED_OUT",
    "error": None,
    "retries": 1,
    "streamed": 0,
}
"""A record as version 0.1 wrote it."""


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("COMPLETED", JobStatus.SUCCEEDED),
        ("FAILED", JobStatus.FAILED),
        ("CANCELLED", JobStatus.CANCELLED),
        ("TIMED_OUT", JobStatus.TIMEOUT),
    ],
)
def test_the_record_of_an_earlier_release_is_read_as_it_is(word: str, status: JobStatus) -> None:
    job = decode_job(json.dumps({**EARLIER, "verdict": word, "final": word}).encode())
    assert (job.verdict, job.final, job.presenter, job.error_code) == (status, status, None, None)
    assert (job.webhook, job.retries, job.uploads[0].url) == (
        "https://client.example/hook",
        1,
        "https://bucket.example/a.png",
    )
    assert decode_job(encode_job(job)) == job


def test_no_other_word_is_a_status() -> None:
    with pytest.raises(StoreError):
        decode_job(json.dumps({**EARLIER, "final": "GONE"}).encode())
