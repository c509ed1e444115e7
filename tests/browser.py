"""A real browser without a window, for tests."""

import contextlib
import shutil
from typing import Any, Iterator, List

from playwright.sync_api import Browser, Page, sync_playwright


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium, as the system has installed it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "no chromium on PATH: install it (Debian and Ubuntu: apt-get install chromium)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page, and what it has complained of and requested.

    Attributes:
        page: The page.
        complaints: Its errors, those of its content security policy included.
        urls: What it has requested.
    """

    def __init__(self, browser: Browser, **options: Any) -> None:
        self.page: Page = browser.new_page(**options)
        self.complaints: List[str] = []
        self.urls: List[str] = []
        self.page.set_default_timeout(30_000)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.urls.append(request.url))
