"""Every generated file with its content."""

import json
from pathlib import Path
from typing import Any

from deploy.generate.dashboards import DASHBOARDS
from deploy.generate.values import Value, read_values

_BEGIN, _END = "<!-- values -->\n", "<!-- /values -->"


def generated(deploy: Path) -> dict[Path, str]:
    """Return the content that each generated file below `deploy` must have. Writes nothing."""
    chart = deploy / "helm"
    values = read_values((chart / "values.yaml").read_text())
    files = {
        chart / "files" / name: (deploy / "prometheus" / name).read_text()
        for name in ("rules.yaml", "alertmanager.yaml")
    }
    for name, dashboard in DASHBOARDS.items():
        text = _json(dashboard)
        files[deploy / "grafana" / f"{name}.json"] = text
        files[chart / "files" / "dashboards" / f"{name}.json"] = text
    schema = json.loads((chart / "values.schema.json").read_text())
    files[chart / "values.schema.json"] = _json(_described(schema, values))
    readme = (chart / "README.md").read_text()
    before, rest = readme.split(_BEGIN)
    after = rest.split(_END)[1]
    files[chart / "README.md"] = before + _BEGIN + _table(values) + _END + after
    return files


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _described(schema: dict[str, Any], values: list[Value]) -> dict[str, Any]:
    """Return the schema with the description of every value that has one."""
    for value in values:
        place = schema
        for key in value.path:
            place = place["properties"][key]
        place["description"] = value.description
    return schema


def _table(values: list[Value]) -> str:
    groups = {value.path[:depth] for value in values for depth in range(1, len(value.path))}
    leaves = [value for value in values if value.path not in groups]
    rows = [f"| `{value.name}` | {_cell(value.description)} | {_default(value)} |" for value in leaves]
    return "\n".join(["| Value | Meaning | Default |", "|---|---|---|", *rows]) + "\n"


def _default(value: Value) -> str:
    return f"`{_cell(json.dumps(value.default, ensure_ascii=False))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
