"""The project's pages."""

from pathlib import Path

PROJECT = Path(__file__).parents[2]
_FOLDERS = ("docs", "deploy", "bench", "conformance", "cli/guide")
PAGES = [*PROJECT.glob("*.md"), *(page for folder in _FOLDERS for page in (PROJECT / folder).rglob("*.md"))]
