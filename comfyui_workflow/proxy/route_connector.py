"""Opens connections along the route to an instance, also for an aiohttp client session."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from comfyui_workflow.errors import WorkflowError
from comfyui_workflow.proxy.model import ClientProtocol, Route

CONNECT_TIMEOUT_S = 10.0


class NotConnected(aiohttp.ClientConnectionError):
    """The connection could not be opened: nothing was sent."""


async def connect(route: Route, protocol_factory: Callable[[], ClientProtocol]) -> ClientProtocol:
    """Raises: NotConnected."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            return await route.connect(protocol_factory)
    except TimeoutError as error:
        raise NotConnected("no answer in time") from error
    except (OSError, WorkflowError) as error:
        raise NotConnected(str(error)) from error


class RouteConnector(aiohttp.BaseConnector):
    """Ignores the host and the port of a request: every connection leads to the ComfyUI of the route."""

    def __init__(self, route: Route, **options: Any) -> None:
        super().__init__(**options)
        self._route = route

    async def _create_connection(self, *_: object) -> ResponseHandler:
        return await connect(self._route, self._factory)
