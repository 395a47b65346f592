"""Files in the portal: looking, finding, changing; names that are data; and what a browser may run of them."""

from __future__ import annotations

import html
import re
from urllib.parse import quote

import pytest
from tests.fakes.world import World
from tests.unit.portal.conftest import Browser, checked_page

HOME = "/portal/files/alps?path=/home/alice"
ENTRY = "/portal/files/alps/entry?path=/home/alice/"


def names(browser: Browser) -> list[str]:
    table = re.search(r'<table id="files">.*?</table>', browser.page.text, re.DOTALL)
    assert table, browser.text
    rows = re.findall(r'<a class="name[^>]*>.*?</svg>\s*<span>(.*?)</span></a>', table[0], re.DOTALL)
    return [html.unescape(re.sub(r"<.*", "", row, flags=re.DOTALL)).strip() for row in rows]


async def test_all_systems_with_what_one_has_there(alice: Browser) -> None:
    await alice.open("/portal/files")
    for words in ("alps", "bora", "/home/alice", "/scratch"):
        assert words in alice.text
    assert "{user}" not in alice.text


async def test_an_empty_folder_says_so(alice: Browser) -> None:
    await alice.open(HOME)
    assert "This folder is empty" in alice.text


async def test_folders_come_first_and_columns_sort(world: World, alice: Browser) -> None:
    world.files.add_directory("/home/alice/zoo", "alice")
    for name, size in (("b.txt", 5), ("A.txt", 300), ("c.txt", 20), (".secret", 1)):
        world.files.add_file(f"/home/alice/{name}", "alice", b"x" * size)
    await alice.open(HOME)
    assert names(alice) == ["zoo", "A.txt", "b.txt", "c.txt"]
    await alice.open(HOME + "&sort=size&order=down")
    assert names(alice) == ["zoo", "A.txt", "c.txt", "b.txt"]
    assert 'aria-sort="descending"' in alice.page.text
    await alice.open(HOME + "&hidden=yes&filter=S")
    assert names(alice) == [".secret"]
    await alice.open(HOME + "&filter=nothing")
    assert "Nothing here has “nothing” in its name" in alice.text
    await alice.open(HOME + "&page=0&sort=colour&order=&hidden=perhaps")
    assert len(names(alice)) == 4


async def test_a_huge_folder_comes_in_pages(world: World, alice: Browser) -> None:
    for number in range(450):
        world.files.add_file(f"/home/alice/f{number:04}", "alice", b"")
    await alice.open(HOME)
    assert "450 entries, page 1 of 3" in alice.text
    assert len(names(alice)) == 200
    await alice.open(HOME + "&page=3")
    assert names(alice)[-1] == "f0449"
    await alice.open(HOME + "&page=99")
    assert "page 3 of 3" in alice.text


@pytest.mark.parametrize("name", ["<script>alert(1)", "a b&c", "q'\"q", "$(id)", "-rf", "ä ☃", "%41", "#x?y=1", "li\nne"])
async def test_a_name_is_a_name(world: World, alice: Browser, name: str) -> None:
    world.files.add_file(f"/home/alice/{name}", "alice", b"it")
    await alice.open(HOME)
    link = re.findall(r'<th scope="row">\s*<a class="name" href="([^"]+)"', alice.page.text)
    await alice.open(html.unescape(link[0]))
    assert "it" in alice.text
    got = await alice.client.get(f"/portal/files/alps/download?path={quote('/home/alice/' + name)}")
    assert (got.status_code, got.content) == (200, b"it")
    assert "\n" not in got.headers["content-disposition"]
    assert got.headers["content-disposition"].startswith("attachment; ")


async def test_a_name_that_is_not_utf_8_can_be_seen_and_deleted(world: World, alice: Browser) -> None:
    path = "/home/alice/caf\udce9"
    world.files.add_file(path, "alice", b"old words")
    await alice.open(HOME)
    link = re.findall(r'<th scope="row">\s*<a class="name" href="([^"]+)"', alice.page.text)
    assert "caf%E9" in link[0]
    await alice.open(html.unescape(link[0]))
    assert "old words" in alice.text
    await alice.open("/portal/files/alps/delete?path=/home/alice/caf%E9&kind=file")
    await alice.send("/portal/files/alps/delete?path=%2Fhome%2Falice%2Fcaf%E9")
    assert path not in world.files.entries


async def test_a_file_is_opened_where_a_folder_was_asked_for(world: World, alice: Browser) -> None:
    world.files.add_file("/home/alice/x.txt", "alice", b"words")
    world.files.add_symlink("/home/alice/link", "alice", "x.txt")
    for name in ("x.txt", "link"):
        await alice.open(f"{HOME}/{name}")
        assert alice.page.url.path == "/portal/files/alps/entry"
        assert "words" in alice.text


async def test_previews_show_text_and_images_and_nothing_that_runs(world: World, alice: Browser) -> None:
    world.files.add_file("/home/alice/bin.dat", "alice", b"\0\1\2")
    world.files.add_file("/home/alice/empty.txt", "alice", b"")
    world.files.add_file("/home/alice/page.html", "alice", b"<script>alert(1)</script>")
    world.files.add_file("/home/alice/evil.svg", "alice", b"<svg onload='alert(1)'/>")
    world.files.add_file("/home/alice/plot.PNG", "alice", b"\x89PNG\r\n")
    await alice.open(ENTRY + "bin.dat")
    assert "This is no text" in alice.text
    await alice.open(ENTRY + "empty.txt")
    assert "The file is empty." in alice.text
    await alice.open(ENTRY + "page.html")
    assert "<script>alert" not in alice.page.text
    await alice.open(ENTRY + "plot.PNG")
    assert "/image?path=" in alice.page.text
    image = await alice.client.get("/portal/files/alps/image?path=/home/alice/plot.PNG")
    assert image.headers["content-type"] == "image/png"
    assert image.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert image.headers["x-content-type-options"] == "nosniff"
    for path in ("evil.svg", "page.html"):
        assert (await alice.client.get(f"/portal/files/alps/image?path=/home/alice/{path}")).status_code == 404


async def test_what_cannot_be_downloaded_is_told_on_a_page(alice: Browser) -> None:
    answer = await alice.client.get("/portal/files/alps/download?path=/home/alice/nothing")
    assert answer.status_code == 404
    checked_page(answer)
    assert "No such file" in answer.text


async def test_a_folder_is_made_and_deleted_after_a_question(world: World, alice: Browser) -> None:
    await alice.open(HOME)
    await alice.send("/portal/files/alps/folder?path=%2Fhome%2Falice", name="new & <b>")
    assert "The folder “new & <b>” is made." in alice.text
    assert "/home/alice/new & <b>" in world.files.entries
    for name in ("", "a/b", "..", "new & <b>"):
        await alice.send("/portal/files/alps/folder?path=%2Fhome%2Falice", name=name)
        assert 'role="alert"' in alice.page.text
    answer = await alice.client.get("/portal/files/alps/delete?path=/home/alice/new%20%26%20%3Cb%3E&kind=folder")
    alice.page = answer
    assert "/home/alice/new & <b>" in world.files.entries
    await alice.send("/portal/files/alps/delete?path=%2Fhome%2Falice%2Fnew+%26+%3Cb%3E")
    assert "is deleted" in alice.text
    assert "/home/alice/new & <b>" not in world.files.entries


async def test_a_new_name_is_given_by_a_job_and_never_onto_another_file(world: World, alice: Browser) -> None:
    for name in ("one", "two"):
        world.files.add_file(f"/home/alice/{name}", "alice", name.encode())
    await alice.open(ENTRY + "one")
    await alice.send("/portal/files/alps/rename?path=%2Fhome%2Falice%2Fone", name="two")
    assert "is there already" in alice.text
    assert await world.all_transfers() == []
    await alice.send("/portal/files/alps/rename?path=%2Fhome%2Falice%2Fone", name="three")
    assert alice.page.url.path.startswith("/portal/transfers/")
    transfer = await world.the_transfer()
    assert (transfer.source_path, transfer.path) == ("/home/alice/one", "/home/alice/three")


async def test_a_folder_is_downloaded_as_an_archive_and_twice_is_once(world: World, alice: Browser) -> None:
    world.files.add_directory("/home/alice/run", "alice")
    await alice.open(ENTRY + "run")
    form = alice.page
    for _ in range(2):
        alice.page = form
        await alice.send("/portal/files/alps/fetch?path=%2Fhome%2Falice%2Frun")
    transfer = await world.the_transfer()
    assert transfer.archive == "tar"


async def test_where_a_job_is_charged_to_something_it_is_asked_for(world: World, alice: Browser) -> None:
    world.files.add_file("/home/alice/x", "alice", b"x")
    await alice.open("/portal/files/bora/entry?path=/home/alice/x")
    assert 'id="fetch-account"' in alice.page.text
    await alice.send("/portal/files/bora/fetch?path=%2Fhome%2Falice%2Fx")
    assert 'role="alert"' in alice.page.text
    await alice.send("/portal/files/bora/fetch?path=%2Fhome%2Falice%2Fx", account="proj")
    assert (await world.the_transfer()).account == "proj"


@pytest.mark.parametrize("path", ["/home/bob", "/etc", "/home/alice/../bob", "/home/alice/none", "relative"])
async def test_what_is_not_ones_own_is_not_shown(world: World, alice: Browser, path: str) -> None:
    world.files.add_file("/home/bob/theirs.txt", "bob", b"private")
    answer = await alice.client.get(f"/portal/files/alps?path={path}")
    assert answer.status_code in {400, 403, 404}
    checked_page(answer)
    assert "This folder cannot be shown" in answer.text
    assert "theirs.txt" not in answer.text


async def test_a_system_that_is_not_there_is_not_there(alice: Browser) -> None:
    for path in ("nothing", "nothing/entry?path=/x", "%2e%2e", "alps/download"):
        assert (await alice.client.get(f"/portal/files/{path}")).status_code == 404
