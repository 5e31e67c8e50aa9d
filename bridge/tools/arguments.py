"""The arguments of tools: one struct defines the arguments, the schema and the check.

A schema that is not enforced fails in the unsafe direction: a misspelt visibility means public, a bad number no limit,
and a misspelt name a missing argument. So unexpected arguments are an error that tells what was expected.
"""

import re
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from bridge.errors import BadArguments
from conclave.errors import ConclaveError
from conclave.machine.config import Level
from conclave.model import Visibility

A = TypeVar("A", bound="Arguments")

Server = Annotated[str, Meta(description="URL of the server; needed only if there are several.")]
Channel = Annotated[str, Meta(description="Name of the channel.")]
User = Annotated[str, Meta(description="Username.")]


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the arguments of all tools."""

    wanted: ClassVar[str] = ""
    """The error for a missing or invalid required argument, if the generated sentence does not fit."""


class ToServer(Arguments, frozen=True):
    """The argument of every tool that asks a server."""

    server: Server | UnsetType = UNSET


class OnChannel(ToServer, frozen=True, kw_only=True):
    channel: Channel


class Named(ToServer, frozen=True, kw_only=True):
    name: Channel


def given(value: Any) -> Any:
    """Return an optional argument, None if it was left out."""
    return None if value is UNSET else value


def read(kind: type[A], arguments: dict[str, Any]) -> A:
    """Check arguments against their struct. JSON's null counts as left out.

    Raises:
        BadArguments: with the first thing that is wrong.
    """
    present = {name: value for name, value in arguments.items() if value is not None}
    required = [field.encode_name for field in msgspec.structs.fields(kind) if field.required]
    if any(not _given_as_text(present, kind, name) for name in required):
        raise BadArguments(kind.wanted or _are_required(required))
    try:
        return msgspec.convert(present, kind, strict=True)
    except msgspec.ValidationError as error:
        raise BadArguments(_in_words(kind, present, str(error))) from None


@cache
def schema(kind: type[Arguments]) -> dict[str, Any]:
    """Return the JSON schema of a struct without references: type, properties, required."""
    _, components = msgspec.json.schema_components([kind], ref_template="{name}")
    own = components[kind.__name__]
    properties = {name: _inlined(entry, components) for name, entry in own["properties"].items()}
    required = own.get("required")
    return {"type": "object", "properties": properties} | ({"required": required} if required else {})


def _inlined(entry: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """Replace the references of an entry by their targets."""
    resolved = {key: value for key, value in entry.items() if key not in {"$ref", "allOf"}}
    for reference in [entry, *entry.get("allOf", [])]:
        if "$ref" in reference:
            target = components[reference["$ref"]]
            resolved = {"type": "string", "enum": target["enum"]} | resolved
    return resolved


def _given_as_text(present: dict[str, Any], kind: type[Arguments], name: str) -> bool:
    """Tell if a required argument is present; in these tools all required ones are texts."""
    return isinstance(present.get(name), str) and name in kind.__struct_fields__


def _are_required(names: list[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return f"{' and '.join(quoted)} {'is' if len(quoted) == 1 else 'are'} required"


_AT = re.compile(r" - at `\$\.(\w+)`$")
_UNKNOWN = re.compile(r"unknown field `(.*)`", re.DOTALL)


def _in_words(kind: type[Arguments], present: dict[str, Any], error: str) -> str:
    unknown = _UNKNOWN.search(error)
    if unknown:
        names = ", ".join(f"`{name}`" for name in kind.__struct_fields__)
        return f"unknown argument `{unknown[1]}` (expected {names})"
    where = _AT.search(error)
    if where is None:
        return error
    name, what = where[1], _AT.sub("", error)
    if kind.wanted and any(field.required and field.name == name for field in msgspec.structs.fields(kind)):
        return kind.wanted
    value = present[name]
    for enum in (Level, Visibility):
        if isinstance(value, str) and enum in _types(kind, name):
            try:
                enum.parse(value)
            except (ConclaveError, ValueError) as problem:
                return str(problem)
    return f"`{name}`: {what[0].lower()}{what[1:]}"


def _types(kind: type[Arguments], name: str) -> set[Any]:
    """Return the types that an argument may have, without their annotations."""
    pending, found = [next(field.type for field in msgspec.structs.fields(kind) if field.name == name)], set()
    while pending:
        annotation = pending.pop()
        pending += getattr(annotation, "__args__", ())
        found.add(annotation)
    return found
