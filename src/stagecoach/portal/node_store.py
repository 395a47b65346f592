"""Having a node of one's own send to an S3 store whose address and key one types: another's receiver, a MinIO, a bucket."""

from __future__ import annotations

import posixpath
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from stagecoach.portal.api_calls import ApiRefusal
from stagecoach.portal.nodes import ONE, api_path, page_path, shown_node
from stagecoach.portal.visits import Visit, page
from stagecoach.portal.words import port_of, rate_of

# What is shown again when something is wrong. Not the secret key: it is typed anew.
FIELDS = (
    "source",
    "is_directory",
    "host",
    "port",
    "tls",
    "certificate",
    "authority",
    "bucket",
    "folder",
    "file_name",
    "access_key",
    "most",
)
_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
# The API's fields, as the form calls them.
_LABELS = {
    "sourcePath": "Path there",
    "host": "Address",
    "port": "Port",
    "caPem": "Certificate of the authority",
    "certificateSha256": "SHA-256 of its certificate",
    "bucket": "Bucket",
    "folder": "Folder in it",
    "fileName": "Name there",
    "accessKeyId": "Access key",
    "secretAccessKey": "Secret key",
    "rateLimitBytesPerSecond": "At most, in a second",
}


@page
async def show_form(visit: Visit) -> Response:
    """Empty, but for what is usual."""
    return await _form(visit, {"tls": "yes"})


@page
async def send(visit: Visit) -> Response:
    """A command in the node's queue. The key goes to the API and is on no page again."""
    said = visit.form
    try:
        await visit.api("POST", f"{api_path(visit)}/sends", json=_wanted(said))
    except ApiRefusal as refusal:
        if refusal.status == 401:
            raise
        return await _form(visit, said, refusal.status, _words(refusal))
    visit.say("It is in the node’s queue. The key is kept sealed until it has ended, and shown nowhere.")
    return visit.go(page_path(visit))


def _wanted(said: dict[str, str]) -> dict[str, Any]:
    """As the API takes it. Raises ApiRefusal for what is no number or certificate."""
    source, is_directory = "/" + said.get("source", "").strip().lstrip("/"), said.get("is_directory") == "yes"
    fingerprint = said.get("certificate", "").replace(":", "").strip().lower()
    authority = said.get("authority", "").strip()
    endpoint = {
        "host": said.get("host", "").strip(),
        "port": port_of(said.get("port", "")),
        "tls": said.get("tls") == "yes",
        "certificateSha256": fingerprint or None,
        "caPem": authority or None,
    }
    if endpoint["port"] is None:
        raise ApiRefusal(422, "validation_error", "The port is a number from 1 to 65535.")
    if authority and _CERTIFICATE not in authority:
        raise ApiRefusal(422, "validation_error", f"The certificate of the authority begins with {_CERTIFICATE}.")
    most = said.get("most", "").strip()
    if most and rate_of(most) is None:
        raise ApiRefusal(422, "validation_error", "Say how much in a second, such as 20 MB, or leave it empty.")
    return {
        "sourcePath": source,
        "isDirectory": is_directory,
        "endpoint": endpoint,
        "bucket": said.get("bucket", "").strip(),
        "folder": said.get("folder", "").strip().strip("/"),
        "fileName": None if is_directory else said.get("file_name", "").strip() or posixpath.basename(source),
        "accessKeyId": said.get("access_key", "").strip(),
        "secretAccessKey": said.get("secret_key", "").strip(),
        "rateLimitBytesPerSecond": rate_of(most),
    }


def _words(refusal: ApiRefusal) -> str:
    """Which field it is; what was written there is not repeated."""
    if refusal.code != "validation_error" or not refusal.data.get("fields"):
        return refusal.message
    names = [str(field["name"]).rpartition(".")[2] for field in refusal.data["fields"]]
    known = dict.fromkeys(_LABELS[name] for name in names if name in _LABELS)
    return f"Look at this again: {', '.join(known)}." if known else "Something in the form cannot be taken; look at it again."


async def _form(visit: Visit, said: dict[str, str], status: int = 200, complaint: str = "") -> Response:
    shown = await shown_node(visit)
    if not shown["is_mine"]:
        raise HTTPException(404)
    kept = {name: said.get(name, "") for name in FIELDS}
    return visit.render("node_store.html", status, **shown, said=kept, complaint=complaint)


routes = [
    Route(f"{ONE}/store", show_form, methods=["GET"]),
    Route(f"{ONE}/store", send, methods=["POST"]),
]
