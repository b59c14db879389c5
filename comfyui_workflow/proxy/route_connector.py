"""Opens the connections of an aiohttp client session along the route to an instance."""

import asyncio
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from comfyui_workflow.errors import WorkflowError
from comfyui_workflow.proxy.model import Route

CONNECT_TIMEOUT_S = 10.0


class NotConnected(aiohttp.ClientConnectionError):
    """The connection could not be opened: nothing was sent."""


class RouteConnector(aiohttp.BaseConnector):
    """Ignores the host and the port of a request: every connection leads to the ComfyUI of the route."""

    def __init__(self, route: Route, **options: Any) -> None:
        super().__init__(**options)
        self._route = route

    async def _create_connection(self, *_: object) -> ResponseHandler:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await self._route.connect(self._factory)
        except TimeoutError as error:
            raise NotConnected("no answer in time") from error
        except (OSError, WorkflowError) as error:
            raise NotConnected(str(error)) from error
