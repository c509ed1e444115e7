"""The status page in a real browser, and what its applications answer."""

import json
import urllib.request
from typing import Any, Iterator

import httpx
import pytest
from browser import Watched, chromium
from database_servers import GLOBAL_SCHEMA, SHARD_SCHEMA, Databases
from playwright.sync_api import Browser, Page, expect
from programs import url_of, web_server

from dualdb.integrations.status_page import responses
from dualdb.sandbox import Sandbox

SERVERS = {
    "asgi": ("status_app:app", "/ops/status/", {}),
    "asgi-threads": ("status_app:app", "/threads/status/", {}),
    "wsgi": ("status_app:wsgi", "/ops/status/", {"server": "gunicorn"}),
}


expect.set_options(timeout=30_000)


class Site:
    """The application behind a real server."""

    def __init__(self, address: str, path: str) -> None:
        self.address = address
        self.url = address + path
        self.query("read")  # it is open then

    def query(self, what: str, shard_id: int = 1) -> str:
        url = f"{self.address}/query/{shard_id}/{what}"
        return str(json.loads(urllib.request.urlopen(url, timeout=30).read()))


@pytest.fixture(scope="module", params=list(SERVERS))
def site(request: pytest.FixtureRequest, servers: Databases) -> Iterator[Site]:
    servers.reset()
    module, path, options = SERVERS[request.param]
    with web_server(module, url_of(servers.config), **options) as address:
        yield Site(address, path)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def watched(browser: Browser, site: Site) -> Iterator[Watched]:
    made = Watched(browser, viewport={"width": 1200, "height": 800}, color_scheme="light")
    made.page.goto(site.url)
    expect(made.page.locator("#databases tbody tr")).to_have_count(3)
    yield made
    made.page.close()


def figure(page: Page, name: str) -> Any:
    return page.locator(f"#summary div:has(dt:text-is('{name}')) dd")


@pytest.mark.slow
def test_it_shows_the_service_and_goes_on(watched: Watched, site: Site) -> None:
    page = watched.page
    expect(page.locator("#state")).to_have_text("ok")
    assert page.title() == "dualdb: ok"
    assert page.locator("#databases tbody tr").nth(1).inner_text().startswith("shard 1")
    assert figure(page, "Map version").inner_text() == "1"
    before = int(figure(page, "Calls").inner_text().replace(",", ""))
    site.query("slow")
    site.query("fail", 2)
    expect(figure(page, "Calls")).not_to_have_text(f"{before:,}")
    expect(page.locator("#statements")).to_contain_text("SELECT SLEEP(?), ?")
    row = page.locator("#errors tbody tr", has_text="shard 2")
    expect(row).to_contain_text("ProgrammingError 1146")
    expect(row).to_contain_text("SELECT ? FROM absent")
    assert page.locator("#databases svg.spark").count() == 3
    assert "canary" not in page.content()
    assert watched.complaints == []
    assert [url for url in watched.urls if not url.startswith((site.url, "data:"))] == []


@pytest.mark.slow
def test_nothing_from_a_database_becomes_markup(watched: Watched, site: Site) -> None:
    site.query("markup")
    expect(watched.page.locator("#statements")).to_contain_text("<img src=x onerror=alert(1)>")
    expect(watched.page.locator("#errors")).to_contain_text("<b>absent</b>")
    assert watched.page.locator("main img, main b").count() == 0
    assert watched.complaints == []


@pytest.mark.slow
def test_it_can_be_used_with_the_keyboard(watched: Watched) -> None:
    page = watched.page
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the databases")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Pause")
    page.keyboard.press("Space")
    expect(page.locator("#pause")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#updated")).to_have_text("paused")
    page.keyboard.press("Enter")
    expect(page.locator("#updated")).to_have_text("live")
    page.keyboard.press("Tab")
    page.keyboard.type("shard 2")
    expect(page.locator("#databases tbody tr")).to_have_count(1)
    expect(page.locator("#databases-title")).to_have_text("Databases (1 of 3)")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator("#databases tbody tr")).to_have_count(0)
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Calls")
    page.keyboard.press("Enter")
    expect(page.locator("th[aria-sort]")).to_have_text("Calls")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_on_a_narrow_screen(browser: Browser, site: Site, scheme: Any) -> None:
    watched = Watched(browser, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    site.query("fail")
    watched.page.goto(site.url)
    expect(watched.page.locator("#databases tbody tr")).to_have_count(3)
    expect(watched.page.locator("#errors tbody tr").first).to_be_visible()
    width = watched.page.evaluate("document.documentElement.scrollWidth")
    ground = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
    watched.page.close()
    assert width == 360
    assert ground == {"light": "rgb(244, 245, 248)", "dark": "rgb(18, 21, 28)"}[scheme]


@pytest.mark.slow
def test_text_can_be_read_in_both_schemes(browser: Browser, site: Site) -> None:
    """The contrast of small text is 4.5 at least (WCAG AA)."""
    for scheme in ("light", "dark"):
        watched = Watched(browser, color_scheme=scheme)
        watched.page.goto(site.url)
        expect(watched.page.locator("#databases tbody tr")).to_have_count(3)
        colours = watched.page.evaluate(
            """() => {
                const style = getComputedStyle(document.documentElement);
                return Object.fromEntries(["ground", "surface", "text", "muted", "good",
                    "good-ground", "warn", "warn-ground", "bad", "bad-ground", "idle",
                    "idle-ground"].map((name) => [name, style.getPropertyValue("--" + name)]));
            }"""
        )
        watched.page.close()
        pairs = [("text", "surface"), ("text", "ground"), ("muted", "surface"), ("muted", "ground")]
        pairs += [(name, f"{name}-ground") for name in ("good", "warn", "bad", "idle")]
        for text, ground in [*pairs, ("bad", "surface")]:
            assert contrast(colours[text], colours[ground]) >= 4.5, (scheme, text, ground)


def contrast(first: str, second: str) -> float:
    dark, light = sorted([luminance(first), luminance(second)])
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    digits = colour.strip().lstrip("#")
    parts = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    red, green, blue = [
        each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in parts
    ]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.slow
@pytest.mark.parametrize("server", ["asgi", "wsgi"])
def test_it_works_while_databases_are_down(browser: Browser, server: str) -> None:
    module, path, options = SERVERS[server]
    with Sandbox(1) as sandbox:
        sandbox.run("global", *GLOBAL_SCHEMA)
        sandbox.run(1, *SHARD_SCHEMA)
        with web_server(module, sandbox.url, **options) as address:
            site = Site(address, path)
            sandbox.servers["global"].kill()
            watched = Watched(browser)
            watched.page.goto(site.url)
            expect(watched.page.locator("#state")).to_have_text("degraded")
            expect(watched.page.locator("#problems")).to_contain_text(
                "The shard table cannot be read, the last map stays in use"
            )
            expect(watched.page.locator("#databases tbody tr").first).to_contain_text("unreachable")
            expect(watched.page.locator("#jobs-failure")).to_contain_text("cannot be read")
            expect(watched.page.locator("#databases tbody tr").nth(1)).to_contain_text("active")
            assert site.query("read") == str("ok" if server == "asgi" else ["ok"])
            watched.page.close()


@pytest.mark.slow
def test_many_shards_are_shown_with_the_troubled_first(browser: Browser, site: Site) -> None:
    snapshot = httpx.get(f"{site.url}status.json").json()
    shard = snapshot["databases"][1]
    snapshot["databases"] += [{**shard, "name": f"shard {number}"} for number in range(3, 1001)]
    snapshot["databases"][700] = {**shard, "name": "shard 700", "state": "unreachable"}
    event = f"data: {json.dumps(snapshot)}\n\n"
    watched = Watched(browser)
    page = watched.page
    page.route(
        "**/events", lambda route: route.fulfill(content_type="text/event-stream", body=event)
    )
    page.goto(site.url)
    expect(page.locator("#databases tbody tr")).to_have_count(200)
    expect(page.locator("#databases tbody tr").first).to_contain_text("shard 700")
    expect(page.locator("#databases .more")).to_have_text("801 more: use the filter.")
    page.locator("#filter").fill("shard 99")
    expect(page.locator("#databases tbody tr")).to_have_count(11)
    expect(page.locator("#databases-title")).to_have_text("Databases (11 of 1,001)")
    page.close()
    assert watched.complaints == []


# What the applications answer.


def test_it_is_read_only_and_has_no_secrets(site: Site, servers: Databases) -> None:
    with httpx.Client(base_url=site.url) as client:
        for path in ("", "page.css", "page.js", "status.json"):
            found = client.get(path)
            assert found.status_code == 200
            assert int(found.headers["content-length"]) == len(found.content)
            assert "default-src 'none'" in found.headers["content-security-policy"]
            assert found.headers["cache-control"] == "no-store"
            assert found.headers["x-content-type-options"] == "nosniff"
            assert str(servers.config.reveal_password()) not in found.text
            assert client.head(path).content == b""
            for method in ("POST", "PUT", "DELETE", "OPTIONS"):
                refused = client.request(method, path)
                assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        for path in ("other", "static/page.js", "../query", "%2e%2e/setup.cfg", "page.js/"):
            assert client.get(path).status_code == 404


def test_a_path_without_a_slash_leads_to_the_page(site: Site) -> None:
    found = httpx.get(site.url[:-1])
    assert found.status_code in (307, 308)
    assert httpx.get(site.url[:-1], follow_redirects=True).url == site.url


def test_the_figures_are_those_of_the_service(site: Site, servers: Databases) -> None:
    found = httpx.get(f"{site.url}status.json").json()
    assert [each["name"] for each in found["databases"]] == ["global", "shard 1", "shard 2"]
    assert found["databases"][0]["address"] == servers.config.address
    assert (found["state"], found["map"]["version"], found["jobs"]) == ("ok", 1, [])
    assert found["jobs_failure"] is None


def test_events_are_those_of_the_standard(site: Site) -> None:
    with httpx.stream("GET", f"{site.url}events") as stream:
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = stream.iter_lines()
        assert next(lines) == "retry: 2000"
        data = next(lines)
    assert json.loads(data[len("data: ") :])["databases"][0]["name"] == "global"


def test_redirects_are_relative() -> None:
    found = responses.static_response("GET", "/a/status", "")
    assert found is not None
    assert ("Location", "status/") in found.headers
