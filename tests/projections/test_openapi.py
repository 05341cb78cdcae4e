"""The OpenAPI document: complete, valid, and true to what is answered (see also `matches` in test_rest)."""

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from octollm.events import schema
from octollm.projections.openapi import EXAMPLES
from tests.projections.conftest import Rest


@pytest.fixture
def document(bare: Rest) -> dict[str, Any]:
    return bare.app.openapi()


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object inside a document."""
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from nodes(child)
    elif isinstance(value, list):
        for child in value:
            yield from nodes(child)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def resolve(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


async def test_it_is_served(bare: Rest) -> None:
    answer = await bare.http.get("/openapi.json")
    assert answer.json() == bare.app.openapi()
    assert answer.json()["openapi"].startswith("3.1")


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = {node["$ref"] for node in nodes(document) if isinstance(node.get("$ref"), str)}
    assert len(references) > 30
    for reference in references:
        resolve(document, reference)


def test_every_schema_is_a_valid_one(document: dict[str, Any]) -> None:
    for found in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(found | {"$schema": "https://json-schema.org/draft/2020-12/schema"})


def test_every_route_is_described(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    found = {(method, path) for method, path, _ in operations(document)}
    assert {
        ("post", "/api/v1/tasks"),
        ("get", "/api/v1/tasks"),
        ("get", "/api/v1/tasks/{task_id}"),
        ("get", "/api/v1/tasks/{task_id}/steps"),
        ("get", "/api/v1/tasks/{task_id}/events"),
        ("get", "/api/v1/tasks/{task_id}/plan"),
        ("post", "/api/v1/tasks/{task_id}/cancel"),
        ("post", "/api/v1/tasks/{task_id}/resume"),
    } <= found
    for _, path, operation in operations(document):
        declared = {item["name"] for item in operation.get("parameters", []) if item["in"] == "path"}
        assert declared == ({"task_id"} if "{task_id}" in path else set())
        assert operation["summary"]


def test_errors_are_problems_and_nothing_else(document: dict[str, Any]) -> None:
    for _, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            if path.startswith("/api/") and int(status) >= 400:
                assert list(answer["content"]) == ["application/problem+json"], (path, status)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def validator(document: dict[str, Any], name: str) -> jsonschema_rs.Draft202012Validator:
    root = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return jsonschema_rs.Draft202012Validator(root, validate_formats=True)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_valid(document: dict[str, Any], name: str) -> None:
    validator(document, name).validate(EXAMPLES[name])


def test_a_submission_is_described_by_the_contract(document: dict[str, Any]) -> None:
    content = document["paths"]["/api/v1/tasks"]["post"]["requestBody"]["content"]["application/json"]
    assert content["schema"] == {"$ref": "#/components/schemas/TaskSubmit"}
    for example in content["examples"].values():
        validator(document, "TaskSubmit").validate(example["value"])
    assert not validator(document, "TaskSubmit").is_valid({"goal": " "})
    assert not validator(document, "TaskSubmit").is_valid({"goal": "x", "surprise": 1})
    assert len(content["examples"]) == len(schema.documents()["task.submit"]["examples"])
