"""Files in the repository that are made from the code are what the code makes today."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from stagecoach.operate import openapi_text
from stagecoach.settings import Settings, load_settings, settings_from
from stagecoach.settings_example import example_text

REPOSITORY = Path(__file__).resolve().parents[2]
AGAIN = "differs from what the code makes now; say 'make openapi' and look at the difference before you commit it"


def test_the_example_settings_are_those_of_the_code() -> None:
    kept = (REPOSITORY / "deploy/settings.example.yaml").read_text(encoding="utf-8")
    assert kept == example_text(), f"deploy/settings.example.yaml {AGAIN}"


def test_the_openapi_document_is_that_of_the_code() -> None:
    kept = (REPOSITORY / "openapi/openapi.json").read_text(encoding="utf-8")
    assert kept == openapi_text(), f"openapi/openapi.json {AGAIN}"


@pytest.mark.parametrize("uncommented", [False, True])
def test_the_example_settings_can_be_loaded(tmp_path: Path, uncommented: bool) -> None:
    for name in ("stagecoach-database-url", "s3-access-key-id", "s3-secret-access-key"):
        (tmp_path / name).write_text("postgresql+psycopg://stagecoach@db/stagecoach" if "url" in name else "x")
    (tmp_path / "portal-client-secret").write_text("x")
    (tmp_path / "portal-cookie-key").write_text("x" * 32)
    (tmp_path / "nodes-sealing-key").write_text("x" * 32)
    (tmp_path / "stagecoach-webhook-secret").write_text("whsec_" + "c2VjcmV0" * 4)
    text = example_text().replace("secret_file:/run/secrets/", f"secret_file:{tmp_path}/")
    if uncommented:
        # What is shown but left out: '#key: value', where a sentence has a space after its '#'.
        text = re.sub(r"^( *)#(?=[a-z0-9_]+:|- )", r"\1", text, flags=re.MULTILINE)
        assert "mover_concurrency: 8" in text
    (tmp_path / "settings.yaml").write_text(text)
    settings = load_settings(tmp_path / "settings.yaml")
    assert settings.systems[0].name == "alps"
    assert settings.systems[0].needs_account
    assert (settings.systems[0].mover_concurrency == 8) is uncommented
    assert settings.s3.client_url == "https://s3.example.org"


def test_the_example_shows_every_setting() -> None:
    def keys(schema: dict[str, object], definitions: dict[str, dict[str, object]]) -> set[str]:
        properties: dict[str, dict[str, object]] = schema.get("properties", {})  # type: ignore[assignment]
        found = set(properties)
        for value in json.dumps(properties).split('"#/$defs/')[1:]:
            found |= keys(definitions[value.split('"')[0]], definitions)
        return found

    schema = Settings.model_json_schema(by_alias=True)
    shown = set(re.findall(r"^ *#?(?:- )?#?([a-z0-9_]+):", example_text(), flags=re.MULTILINE))
    assert keys(schema, schema["$defs"]) <= shown


def test_the_example_is_plain_yaml_with_the_defaults_where_nothing_else_is_said() -> None:
    document = yaml.safe_load(example_text())
    defaults = settings_from({})
    assert document["worker"]["lease_seconds"] == defaults.worker.lease_seconds
    assert document["auth"]["issuers"][0]["algorithms"] == list(defaults.auth.issuers[0].algorithms)


STRANGERS = {
    ("get", "/auth/methods"),
    ("get", "/status/liveness/"),
    ("post", "/accounts/sessions"),
    ("post", "/agent/enrol"),
}


def test_the_openapi_document_describes_one_problem_body_everywhere() -> None:
    document = json.loads(openapi_text())
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            if path != "/healthz":
                schema = operation["responses"]["4XX"]["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}, (path, verb)
                is_open = (verb, path) in STRANGERS
                assert bool(operation.get("security")) is not is_open, f"{verb} {path} needs no token"
