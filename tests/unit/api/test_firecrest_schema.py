"""Our document has all of FirecREST's published one; what differs is on purpose and stands here, each with its reason."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from tests.conformance.firecrest_schema import DOCUMENT, differences, operations

from stagecoach.operate import openapi_text

OPS, TRANSFER = "/filesystem/{}/ops", "/filesystem/{}/transfer"
OPERATIONS = ("mv", "cp", "compress", "extract")
S3 = "get /status/systems 200.systems.dataOperation.data_transfer"

DIFFERENCES: dict[str, list[str]] = {
    "its client sends it with a job's id as well, and it means something there": ["+ get /compute/{}/jobs/{} ?allusers"],
    "nothing is run where no command is said; theirs answers with an error of the cluster": [
        "~ put /compute/{}/jobs/{}/attach body.command is required by ours alone"
    ],
    "a path is `path` in our document and in FirecREST's examples; `sourcePath` and `source_path` are understood": [
        f"{sign} {route} body.{name}"
        for route in (
            f"put {OPS}/chmod",
            f"put {OPS}/chown",
            f"post {OPS}/mkdir",
            f"post {OPS}/symlink",
            f"post {OPS}/compress",
            f"post {OPS}/extract",
            f"post {TRANSFER}/upload",
            f"post {TRANSFER}/download",
            *(f"post {TRANSFER}/{verb}" for verb in OPERATIONS),
        )
        for sign, name in (("-", "sourcePath"), ("+", "path"))
    ],
    "a name that is no text is told in base64 instead": [
        *(f"+ {route} body.pathBase64" for route in (f"put {OPS}/chmod", f"put {OPS}/chown", f"post {OPS}/mkdir")),
        *(f"+ post {OPS}/{verb} body.pathBase64" for verb in ("symlink", "compress", "extract")),
        *(f"+ post {OPS}/{verb} body.targetPathBase64" for verb in ("compress", "extract")),
        *(f"~ post {OPS}/{verb} body.targetPath is required by theirs alone" for verb in ("compress", "extract")),
        f"+ post {OPS}/symlink body.linkPathBase64",
        f"~ post {OPS}/symlink body.linkPath is required by theirs alone",
        f"+ get {OPS}/ls 200.output.nameBase64",
        *(f"+ put {OPS}/{verb} 200.output.nameBase64" for verb in ("chmod", "chown")),
        *(f"+ post {OPS}/{verb} 201.output.nameBase64" for verb in ("mkdir", "symlink")),
    ],
    "bytes come as bytes; theirs come so too, against its own document": [
        f"- get {OPS}/download 200 application/json",
        f"+ get {OPS}/download 200 application/octet-stream",
    ],
    "as version 2.6.0 answers": ["+ get /status/{}/userinfo 200.groups.default"],
    "always there, with a value that does not change; only the document calls it a default": [
        *(f"~ get /compute/{{}}/jobs{one} 200.jobs.allocationNodes is required by theirs alone" for one in ("", "/{}")),
        *(
            f"~ {S3}.{name} is required by theirs alone"
            for name in ("accessKeyId", "privateUrl", "secretAccessKey", "serviceType")
        ),
        "~ get /status/systems 200.systems.scheduler.type is required by theirs alone",
        f"~ post {TRANSFER}/upload 201.transferDirectives.transferMethod is required by theirs alone",
        f"~ post {TRANSFER}/download 201.transferDirectives.transferMethod is required by theirs alone",
    ],
    "streamer and wormhole are methods that we refuse": [
        *(f"- {S3}.{name}" for name in ("host", "inboundTransferLimit", "portRange", "publicIps", "pypiIndexUrl", "waitTimeout")),
        *(
            f"- post {TRANSFER}/{way} 201.transferDirectives.{name}"
            for way in ("upload", "download")
            for name in ("coordinates", "wormholeCode")
        ),
        f"+ post {TRANSFER}/download body.transferDirectives.wormholeCode",
        f"~ post {TRANSFER}/upload body.transferDirectives.wormholeCode is required by theirs alone",
    ],
    "S3 is meant where no method is said": [
        f"~ post {TRANSFER}/{way} body.{name} is required by theirs alone"
        for way in ("upload", "download")
        for name in ("transferDirectives", "transferDirectives.transferMethod")
    ],
    "as its versions before 2.4 asked and answered, which its client still understands": [
        *(f"+ post {TRANSFER}/upload body.{name}" for name in ("fileName", "fileSize")),
        *(
            f"+ post {TRANSFER}/upload 201.{name}"
            for name in ("completeMultipartUploadUrl", "completeUploadUrl", "maxPartSize", "partsUploadUrls")
        ),
        f"+ post {TRANSFER}/download 201.downloadUrl",
    ],
    "our own: directories, digests, webhooks, and a transfer's own id and state": [
        *(f"+ post {TRANSFER}/{way} body.{name}" for way in ("upload", "download") for name in ("archive", "webhookUrl")),
        *(
            f"+ post {TRANSFER}/upload body.{name}"
            for name in ("crc32", "sha256", "partDigests", "partDigests.algorithm", "partDigests.values")
        ),
        *(f"+ post {TRANSFER}/{way} 201.{name}" for way in ("upload", "download") for name in ("transferId", "transferState")),
        *(f"+ post {TRANSFER}/{verb} 201.{name}" for verb in OPERATIONS for name in ("transferId", "transferState")),
        *(f"+ post {TRANSFER}/{verb} body.webhookUrl" for verb in OPERATIONS),
        *(f"+ delete {TRANSFER}/rm 200.{name}" for name in ("transferId", "transferState")),
        f"+ delete {TRANSFER}/rm ?webhookUrl",
    ],
}


def ours() -> Any:
    return json.loads(openapi_text())


def test_each_difference_is_on_purpose() -> None:
    on_purpose = [line for lines in DIFFERENCES.values() for line in lines]
    assert sorted(differences(ours())) == sorted(on_purpose)


def test_there_are_all_of_its_routes_to_compare() -> None:
    assert len(operations(DOCUMENT)) == 35
    assert differences(DOCUMENT) == set()


@pytest.mark.parametrize(
    ("path", "method", "place", "line"),
    [
        ("/filesystem/{system}/ops/view", "get", ("parameters",), f"- get {OPS}/view ?offset"),
        ("/filesystem/{system}/ops/rm", "delete", (), f"- delete {OPS}/rm"),
        ("/compute/{system}/jobs", "post", ("requestBody",), "- post /compute/{}/jobs body.job.script"),
        ("/compute/{system}/jobs", "post", ("responses", "201"), "- post /compute/{}/jobs 201.jobId"),
    ],
)
def test_what_is_taken_away_is_missed(path: str, method: str, place: tuple[str, ...], line: str) -> None:
    document = copy.deepcopy(ours())
    within = document["paths"][path]
    for name in (method, *place)[:-1]:
        within = within[name]
    del within[(method, *place)[-1]]
    assert line in differences(document) - differences(ours())
