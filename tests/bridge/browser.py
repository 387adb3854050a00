"""A headless Chromium, for tests of pages; they are skipped where there is none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install .[browser]")
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("these pages need a Chromium, which pip cannot install: see the README, Tests")
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []  # root has no user namespace to build it from
    with api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=path, args=flags)
        try:
            yield chromium
        finally:
            chromium.close()


def watched(page: Any) -> tuple[list[str], list[str]]:
    """Errors of a page's console, and addresses that it asked for, as they come."""
    errors: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    return errors, asked
