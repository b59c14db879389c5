"""Routes for files, node classes and the state of the machine."""

from aiohttp import web

from comfyui_workflow.sandbox.backend import Backend
from comfyui_workflow.sandbox.system import model_folders, models_in, newest_files, serialize_system
from comfyui_workflow.sandbox.uploads import UploadRefused, store_image, store_mask
from comfyui_workflow.sandbox.viewing import view


class MachineRoutes:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/upload/image", self.upload_image),
            web.post("/upload/mask", self.upload_mask),
            web.get("/view", self.view),
            web.get("/object_info", self.object_info),
            web.get("/object_info/{node_class}", self.object_info_of),
            web.get("/system_stats", self.system_stats),
            web.get("/features", self.features),
            web.get("/models", self.models),
            web.get("/models/{kind}", self.models_of),
            web.get("/embeddings", self.embeddings),
            web.get("/extensions", self.extensions),
            web.get("/internal/logs", self.logs),
            web.get("/internal/logs/raw", self.raw_logs),
            web.get("/internal/folder_paths", self.folder_paths),
            web.get("/internal/files/{directory}", self.files),
        ]

    async def upload_image(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        try:
            return web.json_response(store_image(form, self._backend.folders))
        except UploadRefused:
            return web.Response(status=400)

    async def upload_mask(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        try:
            return web.json_response(store_mask(form, self._backend.folders))
        except UploadRefused:
            return web.Response(status=400)

    async def view(self, request: web.Request) -> web.StreamResponse:
        return view(request.query, self._backend.folders)

    async def object_info(self, request: web.Request) -> web.StreamResponse:
        catalog = self._backend.catalog
        return web.json_response({name: catalog.serialize(name) for name in catalog})

    async def object_info_of(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["node_class"]
        catalog = self._backend.catalog
        return web.json_response({name: catalog.serialize(name)} if name in catalog else {})

    async def system_stats(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(
            serialize_system(
                version=self._backend.faults.version,
                address=self._backend.address,
                folders=self._backend.folders,
                preview=self._backend.preview_method,
            )
        )

    async def features(self, request: web.Request) -> web.StreamResponse:
        version = self._backend.faults.version
        return web.json_response(version.features) if version.knows_prompt_ids else no_such_page()

    async def models(self, request: web.Request) -> web.StreamResponse:
        kinds = [kind for kind in model_folders(self._backend.folders) if kind != "configs"]
        return web.json_response(kinds)

    async def models_of(self, request: web.Request) -> web.StreamResponse:
        names = models_in(request.match_info["kind"], self._backend.folders)
        return web.Response(status=404) if names is None else web.json_response(names)

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(models_in("embeddings", self._backend.folders))

    async def extensions(self, request: web.Request) -> web.StreamResponse:
        return web.json_response([])

    async def logs(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._backend.engine.log.text())

    async def raw_logs(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._backend.engine.log.serialize())

    async def folder_paths(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(model_folders(self._backend.folders))

    async def files(self, request: web.Request) -> web.StreamResponse:
        directory = self._backend.folders.of_type(request.match_info["directory"])
        if directory is None:
            return web.json_response({"error": "Invalid directory type"}, status=400)
        return web.json_response(newest_files(directory))


def no_such_page() -> web.Response:
    return web.Response(status=404, content_type="application/octet-stream")
