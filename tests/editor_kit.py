"""How an editor's language server reads a reminders file."""

from __future__ import annotations

from typing import Any

import yaml


def as_editor_reads(text: str) -> Any:
    """Load as YAML 1.2, which language servers use: it has no dates."""
    resolvers = {
        first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    loader: Any = type("Loader", (yaml.SafeLoader,), {"yaml_implicit_resolvers": resolvers})
    return yaml.load(text, Loader=loader)  # noqa: S506
