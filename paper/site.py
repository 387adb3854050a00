"""Hooks of the documentation's build: the laws' chapters in its menu, and formulas as MathML, which needs no script."""

from __future__ import annotations

import html
import re
from typing import Any

from paper.pages import CHAPTERS, contents

_MATH = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)


def on_config(config: Any) -> Any:
    """Put the laws into the menu, by chapter in reading order.

    Args:
        config: mkdocs' configuration.

    Returns:
        The configuration.
    """
    chapters = [{CHAPTERS[key][0]: [f"laws/{law}.md" for law in laws]} for key, laws in contents().items() if laws]
    config["nav"] = [{"The laws": ["laws/index.md", *chapters]} if item == "laws" else item for item in config["nav"]]
    return config


def on_page_content(text: str, /, **_: Any) -> str:
    """Replace LaTeX by MathML.

    Args:
        text: The page's HTML.

    Returns:
        HTML that any browser draws offline.
    """
    return _MATH.sub(_mathml, text)


def _mathml(found: re.Match[str]) -> str:
    from latex2mathml.converter import convert

    display = "block" if found[1] == "div" else "inline"
    return convert(html.unescape(found[2]), display=display)
