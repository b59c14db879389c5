"""Request targets of websockets: path and query, as the client sent them."""

from urllib.parse import quote

from yarl import URL


def is_comfyui_socket(target: str) -> bool:
    return target.partition("?")[0] in ("/ws", "/api/ws")


def client_id_in(target: str) -> str | None:
    return URL(target, encoded=True).query.get("clientId") or None


def with_client_id(target: str, client_id: str | None) -> str:
    """Returns the target with that client id; unchanged if it has the id already."""
    if client_id is None or client_id_in(target) == client_id:
        return target
    path, _, query = target.partition("?")
    others = [part for part in query.split("&") if part and part.partition("=")[0] != "clientId"]
    return path + "?" + "&".join([*others, f"clientId={quote(client_id, safe='')}"])
