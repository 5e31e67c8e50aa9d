"""The definitions of custom resources that the chart has objects of; `make deploy-tools` brings them."""

import os
from pathlib import Path
from typing import Any

import yaml

yaml.CSafeLoader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: loader.construct_scalar(node))
"""A plain `=` in a list; YAML 1.1 has a type of its own for it, for which PyYAML has no constructor."""

DEFINITIONS = (
    "gateway.networking.k8s.io_httproutes.yaml",
    "monitoring.coreos.com_servicemonitors.yaml",
    "monitoring.coreos.com_prometheusrules.yaml",
    "monitoring.coreos.com_alertmanagerconfigs.yaml",
)


def read_definition(name: str) -> dict[str, Any]:
    """Return the CustomResourceDefinition in a file."""
    definition: dict[str, Any] = yaml.load((Path(os.environ["CRDS"]) / name).read_text(), Loader=yaml.CSafeLoader)
    return definition
