"""The OpenAPI document of an HTTP door, made of its contract."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from tuneproof.servicekit.http_exchange import HTTP_CODES, JSON, NDJSON, TIMEOUT
from tuneproof.servicekit.json_messages import ERROR_SCHEMA, field_schema, schemas_of

if TYPE_CHECKING:
    from tuneproof.servicekit.http_door import HttpDoor, Route

_WHY = {
    400: "The request is wrong.",
    401: "No bearer token, or an unknown one.",
    403: "The token's role does not suffice.",
    404: "The named thing does not exist.",
    409: "The service, or what it asks, is not in a state for this.",
    413: "The request is too large.",
    415: "The body is of another media type.",
    429: "Too many calls are running.",
    499: "The call was cancelled.",
    500: "A defect; the service's log tells more.",
    503: "Something needed does not answer.",
    504: "The call's time was over.",
}
_SCHEMAS = "#/components/schemas/"
_RESPONSES = "#/components/responses/"


def document(door: HttpDoor, *, secured: bool) -> dict[str, Any]:
    """An object of OpenAPI 3.1.

    Args:
        secured: whether calls need a bearer token.
    """
    schemas: dict[str, Any] = {"Error": ERROR_SCHEMA}
    paths: dict[str, Any] = {}
    for route in door.routes:
        method = door.method(route)
        schemas |= schemas_of(method.input_type, written=False)
        schemas |= schemas_of(method.output_type, written=True)
        paths.setdefault(route.path, {})[route.verb.lower()] = _operation(route, method)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": door.title, "version": door.service.file.package.rpartition(".")[2]},
        "paths": paths,
        "components": {"schemas": schemas, "responses": dict(_refusals())},
    }
    if secured:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"token": []}]
    return found


def _refusals() -> list[tuple[str, Any]]:
    schema = {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"$ref": f"{_SCHEMAS}Error"}},
    }
    wait = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return [
        (
            str(code),
            {
                "description": why,
                "content": {JSON: {"schema": schema}},
                **({"headers": wait} if code in (429, 503) else {}),
            },
        )
        for code, why in _WHY.items()
    ]


def _operation(route: Route, method: MethodDescriptor) -> dict[str, Any]:
    in_path = re.findall(r"\{(\w+)\}", route.path)
    timeout = {
        "name": TIMEOUT,
        "in": "header",
        "description": "Seconds that the call may take.",
        "schema": {"type": "number", "exclusiveMinimum": 0},
    }
    fields = method.input_type.fields if route.verb == "GET" else []
    given, answered = (
        {"$ref": f"{_SCHEMAS}{kind.name}"} for kind in (method.input_type, method.output_type)
    )
    codes = {*HTTP_CODES.values(), *(() if route.verb == "GET" else (413, 415))}
    found: dict[str, Any] = {
        "operationId": method.name,
        "summary": route.summary,
        "parameters": [*(_parameter(one, in_path) for one in fields), timeout],
        "responses": {
            "200": {
                "description": "One object a line." if method.server_streaming else "The reply.",
                "content": {NDJSON if method.server_streaming else JSON: {"schema": answered}},
            },
            **{str(code): {"$ref": f"{_RESPONSES}{code}"} for code in sorted(codes)},
        },
    }
    if route.verb == "POST":
        content: dict[str, Any] = {JSON: {"schema": given}}
        if method.client_streaming:
            many = {"type": "array", "items": given}
            content = {JSON: {"schema": many}, NDJSON: {"schema": given}}
        found["requestBody"] = {"required": True, "content": content}
    return found


def _parameter(field: FieldDescriptor, in_path: list[str]) -> dict[str, Any]:
    within = field.name in in_path
    return {
        "name": field.name,
        "in": "path" if within else "query",
        "required": within,
        "schema": field_schema(field),
    }
