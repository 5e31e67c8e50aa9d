"""Names of nodes: twelve random digits, and the version of the signals that the node reads.

A name without a version is that of a node of version 1. So whoever finds a node in a lease, in a list or in the
registry knows what to send to it.
"""

import secrets

SIGNALS = 2
"""The version of the signals that this node reads. From 2 on a node opens its inbox when it joins the cluster, and
answers whispers."""


def new_node_name() -> str:
    return f"{secrets.token_hex(6)}-{SIGNALS}"


def signals_version(node: str) -> int:
    """Return the version of the signals that a node reads."""
    version = node.rpartition("-")[2] if "-" in node else "1"
    return int(version) if version.isdecimal() else 1
