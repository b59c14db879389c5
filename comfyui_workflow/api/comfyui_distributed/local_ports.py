"""The same routes at the local ports, where the clients of a master expect them."""

from flask import Flask
from werkzeug.datastructures import Headers
from werkzeug.test import create_environ, run_wsgi_app

from comfyui_workflow.api.comfyui_distributed.machines import INSTANCE_OF_PORT
from comfyui_workflow.api.comfyui_distributed.routes import API_PREFIX, PREFIX
from comfyui_workflow.proxy.model import OwnAnswer, OwnRequest, OwnRoutes


def routes_at_local_ports(app: Flask, most_bytes: int) -> OwnRoutes:
    """`most_bytes`: maximum size of a request body."""

    def answer(given: OwnRequest) -> OwnAnswer:
        environ = create_environ(
            given.path,
            method=given.method,
            headers=Headers(given.headers),
            data=given.body,
            environ_overrides={INSTANCE_OF_PORT: given.instance_id},
        )
        pieces, status, headers = run_wsgi_app(app.wsgi_app, environ, buffered=True)
        return OwnAnswer(status=int(status.split()[0]), headers=list(headers.items()), body=b"".join(pieces))

    return OwnRoutes(prefixes=(PREFIX, API_PREFIX), answer=answer, most_bytes=most_bytes)
