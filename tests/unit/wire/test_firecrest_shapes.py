"""Requests as FirecREST's own client, its portal and its users' scripts send them, and nonsense in the same places."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from stagecoach.wire.firecrest import (
    DownloadRequest,
    FlatUploadAnswer,
    S3Directives,
    TransferAnswer,
    TransferJob,
    TransferJobLogs,
    UploadRequest,
)
from stagecoach.wire.transfers import FinishRequest

# pyfirecrest 3.10 against 2.6.0 and against an older server; the portal; the documentation's bash scripts.
PYFIRECREST_UPLOAD = '{"path":"/home/u/big.bin","transfer_directives":{"file_size":20971643,"transfer_method":"s3"}}'
PYFIRECREST_UPLOAD_ACCOUNT = (
    '{"path":"/home/u/big.bin","transfer_directives":{"file_size":20971643,"transfer_method":"s3"},"account":"acc"}'
)
OLD_PYFIRECREST_UPLOAD = '{"source_path":"/home/u","fileName":"big.bin","fileSize":20971643}'
PORTAL_UPLOAD = '{"sourcePath":"/dir/name","account":"","transferDirectives":{"fileSize":20971643,"transferMethod":"s3"}}'
PORTAL_UPLOAD_NULL = '{"sourcePath":"/dir/name","account":null,"transferDirectives":{"fileSize":20971643,"transferMethod":"s3"}}'
SCRIPT_UPLOAD = '{"path":"/dir/name","fileName":"x","transferDirectives":{"fileSize":"20971643","transferMethod":"s3"}}'
WORMHOLE_UPLOAD = '{"path":"/p","transfer_directives":{"wormholeCode":"7-a-b","transfer_method":"wormhole"}}'
STREAMER_UPLOAD = '{"path":"/p","transfer_directives":{"file_size":1,"transfer_method":"streamer"}}'
PYFIRECREST_DOWNLOAD = '{"source_path":"/p","transfer_directives":{"transferMethod":"s3"},"account":"acc"}'
PORTAL_DOWNLOAD = '{"sourcePath":"/p","transferDirectives":{"transferMethod":"s3"}}'
OLD_DOWNLOAD = '{"source_path":"/p"}'


def upload(size: Any) -> UploadRequest:
    return UploadRequest.model_validate_json(json.dumps({"path": "/p", "transferDirectives": {"fileSize": size}}))


@pytest.mark.parametrize(
    ("body", "path", "account"),
    [
        (PYFIRECREST_UPLOAD, "/home/u/big.bin", None),
        (PYFIRECREST_UPLOAD_ACCOUNT, "/home/u/big.bin", "acc"),
        (PORTAL_UPLOAD, "/dir/name", None),
        (PORTAL_UPLOAD_NULL, "/dir/name", None),
        (SCRIPT_UPLOAD, "/dir/name", None),
    ],
)
def test_every_form_of_an_upload_is_understood(body: str, path: str, account: str | None) -> None:
    request = UploadRequest.model_validate_json(body)
    assert (request.path, request.account) == (path, account)
    assert request.transfer_directives is not None
    assert (request.transfer_directives.transfer_method, request.transfer_directives.file_size) == ("s3", 20971643)


def test_the_older_flat_upload_is_understood() -> None:
    request = UploadRequest.model_validate_json(OLD_PYFIRECREST_UPLOAD)
    assert (request.path, request.file_name, request.file_size) == ("/home/u", "big.bin", 20971643)
    assert request.transfer_directives is None


@pytest.mark.parametrize(("body", "method"), [(WORMHOLE_UPLOAD, "wormhole"), (STREAMER_UPLOAD, "streamer")])
def test_methods_that_are_not_spoken_here_are_recognised(body: str, method: str) -> None:
    directives = UploadRequest.model_validate_json(body).transfer_directives
    assert directives is not None
    assert directives.transfer_method == method


@pytest.mark.parametrize(("body", "account"), [(PYFIRECREST_DOWNLOAD, "acc"), (PORTAL_DOWNLOAD, None), (OLD_DOWNLOAD, None)])
def test_every_form_of_a_download_is_understood(body: str, account: str | None) -> None:
    request = DownloadRequest.model_validate_json(body)
    assert (request.path, request.account) == ("/p", account)
    assert (request.transfer_directives is None) == (body == OLD_DOWNLOAD)


@pytest.mark.parametrize("path_key", ["path", "sourcePath", "source_path"])
@pytest.mark.parametrize("directives_key", ["transferDirectives", "transfer_directives"])
@pytest.mark.parametrize("size_key", ["fileSize", "file_size"])
@pytest.mark.parametrize("method_key", ["transferMethod", "transfer_method"])
def test_every_key_is_understood_in_camel_and_snake_case(
    path_key: str, directives_key: str, size_key: str, method_key: str
) -> None:
    request = UploadRequest.model_validate({path_key: "/p", directives_key: {size_key: 7, method_key: "s3"}})
    assert request.path == "/p"
    assert request.transfer_directives is not None
    assert request.transfer_directives.file_size == 7


@pytest.mark.parametrize("name_key", ["fileName", "file_name"])
@pytest.mark.parametrize("size_key", ["fileSize", "file_size"])
def test_the_flat_form_is_understood_in_camel_and_snake_case(name_key: str, size_key: str) -> None:
    request = UploadRequest.model_validate({"path": "/p", name_key: "n", size_key: "7"})
    assert (request.file_name, request.file_size) == ("n", 7)


def test_unknown_keys_are_ignored() -> None:
    body = {"path": "/p", "x": 1, "transferDirectives": {"fileSize": 1, "transferMethod": "s3", "y": {"z": []}}, "": None}
    assert UploadRequest.model_validate(body).path == "/p"


@pytest.mark.parametrize(("size", "expected"), [(0, 0), ("0", 0), (7, 7), ("7", 7), ("007", 7), (5 * 1024**4, 5 * 1024**4)])
def test_sizes_come_as_numbers_or_as_text(size: Any, expected: int) -> None:
    directives = upload(size).transfer_directives
    assert directives is not None
    assert directives.file_size == expected


@pytest.mark.parametrize(
    "size",
    [
        True,
        False,
        1.5,
        1.0,
        "1.0",
        "1e9",
        1e9,
        "12abc",
        "",
        " ",
        " 7",
        "7\n",
        "+7",
        "0x10",
        "1_000",
        -1,
        "-1",
        10**30,
        "1" * 30,
        5 * 1024**4 + 1,
        "٣",
        "７",
        "²",
        [1],
        {},
        [],
        "NaN",
        "null",
    ],
)
def test_what_is_no_size_is_refused(size: Any) -> None:
    with pytest.raises(ValidationError):
        upload(size)


@pytest.mark.parametrize("text", ["Infinity", "NaN", "1e400", "-0.0", "1e2", "9" * 5000])
def test_json_numbers_that_are_no_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        UploadRequest.model_validate_json(f'{{"path":"/p","transferDirectives":{{"fileSize":{text}}}}}')


def test_a_size_of_null_is_no_size() -> None:
    directives = upload(None).transfer_directives
    assert directives is not None
    assert directives.file_size is None


@pytest.mark.parametrize("account", ["", None])
def test_no_account_is_none(account: str | None) -> None:
    assert UploadRequest.model_validate({"path": "/p", "account": account}).account is None
    assert DownloadRequest.model_validate({"path": "/p", "account": account}).account is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"path": None},
        {"path": ""},
        {"path": 1},
        {"path": ["/p"]},
        {"path": "/" + "x" * 4096},
        {"path": "/p", "account": 5},
        {"path": "/p", "account": "x" * 65},
        {"path": "/p", "transferDirectives": []},
        {"path": "/p", "transferDirectives": "s3"},
        {"path": "/p", "transferDirectives": {"transferMethod": "ftp"}},
        {"path": "/p", "transferDirectives": {"transferMethod": None}},
        {"path": "/p", "sha256": "abc"},
        {"path": "/p", "sha256": "g" * 64},
        {"path": "/p", "sha256": "a" * 64 + "\n"},
        {"path": "/p", "crc32": "abc"},
        {"path": "/p", "crc32": "0123456g"},
        {"path": "/p", "crc32": 12345678},
        {"path": "/p", "partDigests": []},
        {"path": "/p", "partDigests": {"algorithm": "md5"}},
        {"path": "/p", "partDigests": {"algorithm": "md5", "values": []}},
        {"path": "/p", "partDigests": {"algorithm": "sha1", "values": ["0" * 40]}},
        {"path": "/p", "partDigests": {"algorithm": "md5", "values": ["0" * 32, "0" * 31]}},
        {"path": "/p", "partDigests": {"algorithm": "md5", "values": ["0" * 64]}},
        {"path": "/p", "partDigests": {"algorithm": "crc32", "values": ["0" * 8, "0" * 7 + "\n"]}},
        {"path": "/p", "partDigests": {"algorithm": "sha256", "values": "0" * 64}},
        {"path": "/p", "partDigests": {"algorithm": "crc32", "values": ["0" * 8] * 10_001}},
        {"path": "/p", "fileName": "x" * 256},
    ],
)
def test_other_nonsense_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        UploadRequest.model_validate_json(json.dumps(body))


@pytest.mark.parametrize("key", ["partDigests", "part_digests"])
@pytest.mark.parametrize(("algorithm", "digits"), [("md5", 32), ("crc32", 8), ("sha256", 64)])
def test_digests_are_understood_in_either_case(key: str, algorithm: str, digits: int) -> None:
    said = {key: {"algorithm": algorithm, "values": ["A" * digits, "0" * digits]}}
    body = {"path": "/p", "crc32": "DEADBEEF", "sha256": "F" * 64, **said}
    for request in (UploadRequest.model_validate(body), FinishRequest.model_validate(body)):
        assert request.whole == {"sha256": "f" * 64, "crc32": "deadbeef"}
        assert request.parts == {algorithm: ["a" * digits, "0" * digits]}
    nothing = FinishRequest.model_validate({"sha256": None, "crc32": None, key: None})
    assert (nothing.whole, nothing.parts) == ({}, {})


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(ValidationError):
        UploadRequest.model_validate_json('{"path":"/home/\\ud800"}')


def test_answers_have_firecrests_keys() -> None:
    logs = TransferJobLogs(output_log="/o", error_log="/e")
    job = TransferJob(job_id="101", system="alps", working_directory="/w", logs=logs)
    expected_job = {"jobId": "101", "system": "alps", "workingDirectory": "/w", "logs": {"outputLog": "/o", "errorLog": "/e"}}
    directives = S3Directives(parts_upload_urls=["u"], complete_upload_url="c", max_part_size=8)
    answer = TransferAnswer(transfer_job=job, transfer_directives=directives, transfer_id="t")
    assert json.loads(answer.model_dump_json(by_alias=True, exclude_none=True)) == {
        "transferJob": expected_job,
        "transferDirectives": {"transferMethod": "s3", "partsUploadUrls": ["u"], "completeUploadUrl": "c", "maxPartSize": 8},
        "transferId": "t",
    }
    flat = FlatUploadAnswer(
        max_part_size=8,
        parts_upload_urls=["u"],
        complete_upload_url="c",
        complete_multipart_upload_url="c",
        transfer_job=job,
        transfer_id="t",
    )
    assert set(flat.model_dump(by_alias=True, exclude_none=True)) == {
        "maxPartSize",
        "partsUploadUrls",
        "completeUploadUrl",
        "completeMultipartUploadUrl",
        "transferJob",
        "transferId",
    }
