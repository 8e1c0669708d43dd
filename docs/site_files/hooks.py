"""MkDocs hook: names of objects in tables of the site link to their reference entry."""

import re
from typing import Any

NAME = re.compile(r"`((?:jukejax|data_pipeline)\.[\w.]+)`")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replaces names by references, which stay plain text where the reference has no entry."""
    if page.file.src_uri.startswith("reference/"):
        return markdown
    return NAME.sub(r'<autoref optional identifier="\1"><code>\1</code></autoref>', markdown)
