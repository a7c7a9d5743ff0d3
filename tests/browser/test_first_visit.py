"""What a browser that was never here asks for, and what crosses the wire."""

import pytest
from playwright.sync_api import expect

from .conftest import go_to

pytestmark = pytest.mark.browser

MAX_KILOBYTES = 100  # and one at most for an empty list of sessions
MAX_FILES = 5


def test_the_first_visit_takes_few_requests_and_few_bytes(context, site):
    page = context.new_page()
    network = context.new_cdp_session(page)
    network.send("Network.enable")
    urls, sizes = {}, {}
    network.on("Network.requestWillBeSent",
               lambda sent: urls.update({sent["requestId"]: sent["request"]["url"]}))
    network.on("Network.loadingFinished",
               lambda done: sizes.update({urls[done["requestId"]]: done["encodedDataLength"]}))
    go_to(page)
    expect(page.locator("#right [role=tab]")).to_have_count(4)  # the settings have come too
    page.wait_for_load_state("networkidle")
    files = [url for url in urls.values() if "/api/" not in url]
    assert len(files) <= MAX_FILES, files
    # of a first visit the list of sessions is empty; other tests may have filled this server's
    kilobytes = sum(size for url, size in sizes.items() if not url.endswith("/api/sessions")) / 1000
    assert 20 < kilobytes <= MAX_KILOBYTES, sorted((size, url[-40:]) for url, size in sizes.items())
