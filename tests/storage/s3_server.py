"""A server with the S3 API, in a thread. It keeps everything in memory, and checks no keys."""

from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import requests
from moto.server import ThreadedMotoServer


@contextmanager
def running_s3() -> Iterator[str]:
    """Yields the URL of the server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def make_bucket(url: str, name: str) -> None:
    assert requests.put(f"{url}/{name}", timeout=10).status_code == 200


def keys_in(url: str, name: str) -> list[str]:
    listing = requests.get(f"{url}/{name}?list-type=2", timeout=10).text
    return [part.partition("</Key>")[0] for part in listing.split("<Key>")[1:]]


def content_of(url: str, name: str, key: str) -> bytes:
    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id="id",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    )
    found: bytes = client.get_object(Bucket=name, Key=key)["Body"].read()
    return found
