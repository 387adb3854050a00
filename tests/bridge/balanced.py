"""A parser for tests of pages."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "input", "img", "path", "use", "rect"}


class Balanced(HTMLParser):
    """Fails on an element that is closed out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag
