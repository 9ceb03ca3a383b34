"""Downloads from a small server on this machine: mirrors, checksums, breaks, archives."""

import gzip
import hashlib
import io
import shutil
import tarfile
import threading
from collections import namedtuple
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from factories import StopAfter

from dgm_bench import data
from dgm_bench.control import Interrupted
from dgm_bench.data import registry
from dgm_bench.data.archives import unpack
from dgm_bench.data.cards import DataFile, Download
from dgm_bench.data.download import NotPublishedError, _Transfer, download
from dgm_bench.errors import DataError

CONTENT = bytes(range(256)) * 40_000  # 10 MB: ten of the chunks in which it is written
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        if self.path.startswith("/dead"):
            self.send_error(503)
            return
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        body, begin = server.content, 0
        if server.with_range and (wanted := self.headers.get("Range")):
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.end_headers()
                return
        self.send_response(206 if begin else 200)
        headers = {"Content-Length": str(len(body) - begin)}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(body) - 1}/{len(body)}"
        for name, value in (headers | server.headers).items():
            self.send_header(name, value)
        self.end_headers()
        sent = server.break_after.pop(0) if server.break_after else None
        with suppress(ConnectionError):  # who is given more than it should leaves
            self.wfile.write(body[begin : None if sent is None else begin + sent])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.content, running.with_range = CONTENT, True
        running.requests, running.break_after, running.headers = [], [], {}
        running.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def item_of(server, *paths: str, **changes: object) -> Download:
    urls = tuple(server.url + path for path in paths or ("/file",))
    item = Download(urls=urls, path="set/file.bin", size=len(CONTENT), sha256=SHA256)
    return replace(item, **changes)


def only_file(root: Path) -> Path:
    (path,) = (path for path in root.rglob("*") if path.is_file())
    return path


def test_a_file_arrives_whole(server, tmp_path):
    download(item_of(server), tmp_path, progress=True)
    assert only_file(tmp_path) == tmp_path / "set/file.bin"
    assert only_file(tmp_path).read_bytes() == CONTENT


def test_what_is_there_is_not_fetched_again(server, tmp_path):
    for _ in range(2):
        download(item_of(server), tmp_path, progress=False)
    assert len(server.requests) == 1


def test_a_stopped_download_goes_on_and_a_stopped_unpacking_leaves_nothing(server, tmp_path):
    with StopAfter(4).active(), pytest.raises(Interrupted):
        download(item_of(server), tmp_path, progress=False)
    assert 2_000_000 < only_file(tmp_path).stat().st_size < 5_000_000
    download(item_of(server), tmp_path, progress=False)
    assert only_file(tmp_path).read_bytes() == CONTENT
    assert server.requests[-1][1] is not None  # only the rest
    packed = archive_of(tmp_path / "a.tgz", lambda tar: add(tar, "rows.npy", b"rows" * 10**6))
    with StopAfter(3).active(), pytest.raises(Interrupted):
        unpack(packed, tmp_path, 10**7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tgz", "set"]


def test_a_dead_mirror_is_passed_over(server, tmp_path):
    item = item_of(server, "/dead", "/file")
    download(
        replace(item, urls=("http://127.0.0.1:9/refused", *item.urls)), tmp_path, progress=False
    )
    assert only_file(tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/dead", "/file"]


def test_a_broken_connection_continues_where_it_stopped(server, tmp_path):
    server.break_after = [3_000_000, 2_000_000]
    download(item_of(server), tmp_path, progress=False)
    assert only_file(tmp_path).read_bytes() == CONTENT
    begins = [wanted for _, wanted in server.requests]
    assert begins[0] is None
    assert len(begins) == 3
    assert all(begin.startswith("bytes=") for begin in begins[1:])


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.with_range, server.break_after = False, [3_000_000]
    download(item_of(server), tmp_path, progress=False)
    assert only_file(tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_later_command_continues_an_earlier_one(server, tmp_path):
    server.break_after = [3_000_000, 0]
    with pytest.raises(DataError, match="it continues where it stopped"):
        download(item_of(server), tmp_path, progress=False)
    left = only_file(tmp_path)
    assert left.name == "file.bin.part"
    assert left.read_bytes() == CONTENT[: left.stat().st_size]
    assert (length := left.stat().st_size) > 0
    download(item_of(server), tmp_path, progress=False)
    assert only_file(tmp_path).read_bytes() == CONTENT
    assert server.requests[-1][1] == f"bytes={length}-"


def test_a_whole_part_only_needs_its_name(server, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/file.bin.part").write_bytes(CONTENT)
    download(item_of(server), tmp_path, progress=False)
    assert only_file(tmp_path).name == "file.bin"


def test_a_part_of_another_longer_file_is_dropped(server, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/file.bin.part").write_bytes(CONTENT + b"more")
    download(item_of(server), tmp_path, progress=False)
    assert only_file(tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(DataError, match=r"127\.0\.0\.1:\d+: wrong checksum"):
        download(item_of(server), tmp_path, progress=False)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_md5_is_checked_where_only_that_is_published(server, tmp_path):
    right = hashlib.md5(CONTENT).hexdigest()
    download(item_of(server, sha256=None, md5=right), tmp_path, progress=False)
    with pytest.raises(DataError, match="wrong checksum"):
        download(item_of(server, sha256=None, md5="0" * 32), tmp_path / "other", progress=False)


def test_gits_name_is_checked_where_only_that_is_known(server, tmp_path):
    right = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
    download(item_of(server, sha256=None, git_blob=right), tmp_path, progress=False)
    with pytest.raises(DataError, match="wrong checksum"):
        download(item_of(server, sha256=None, git_blob="0"), tmp_path / "other", progress=False)
    assert not (tmp_path / "other/set/file.bin").exists()


@pytest.mark.parametrize("known", [{}, {"sha256": None}])
def test_a_page_of_a_network_that_asks_for_a_login_is_not_the_file(known, server, tmp_path):
    server.content, server.headers = b"<html>", {"Content-Type": "Text/HTML; charset=utf-8"}
    with pytest.raises(DataError, match="gives a web page"):
        download(item_of(server, **known), tmp_path, progress=False)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("told", [True, False])
def test_more_than_the_known_size_is_not_taken(told, server, tmp_path, monkeypatch):
    if not told:  # without a length, the connection's end is the file's
        monkeypatch.setattr(Handler, "send_header", lambda *_: None)
    with pytest.raises(DataError, match="gives more than the 1,000,000 bytes"):
        download(item_of(server, size=1_000_000), tmp_path, progress=False)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_encoding_that_a_server_names_is_left_on(server, tmp_path):
    """Some servers call the gzip of an archive an encoding; the published file has it."""
    packed = gzip.compress(CONTENT[:1000])
    server.content, server.headers = packed, {"Content-Encoding": "x-gzip"}
    sha256 = hashlib.sha256(packed).hexdigest()
    download(item_of(server, size=len(packed), sha256=sha256), tmp_path, progress=False)
    assert only_file(tmp_path).read_bytes() == packed


def test_a_redirect_to_another_host_needs_a_checksum(server, tmp_path):
    other = server.url.replace("127.0.0.1", "localhost")
    for number, (there, known) in enumerate(((other, {}), (server.url, {"sha256": None}))):
        item = item_of(server, f"/to/{there}/file", **known)
        download(item, tmp_path / str(number), progress=False)
        assert only_file(tmp_path / str(number)).read_bytes() == CONTENT
    item = item_of(server, f"/to/{other}/file", sha256=None)
    with pytest.raises(DataError, match="redirects to localhost"):
        download(item, tmp_path / "no", progress=False)


@pytest.mark.parametrize(
    ("location", "says"),
    [("file:///etc/passwd", "from http to file"), ("ftp://host/file", "from http to ftp")],
)
def test_a_redirect_to_what_is_no_server_is_refused(location, says, server, tmp_path):
    with pytest.raises(DataError, match=says):
        download(item_of(server, f"/to/{location}"), tmp_path, progress=False)


def test_a_redirect_without_end_ends(server, tmp_path):
    with pytest.raises(DataError, match="redirects without end"):
        download(item_of(server, "/to/" * 20), tmp_path, progress=False)


def test_https_is_not_left():
    item = Download(urls=("https://host/file",), path="file", size=1, sha256=SHA256)
    transfer = _Transfer(item, Path("part"), progress=False)
    assert transfer._redirected(item.urls[0], "https://other/file") == "https://other/file"
    with pytest.raises(NotPublishedError, match="from https to http"):
        transfer._redirected(item.urls[0], "http://host/file")


def test_a_part_is_only_continued_where_a_checksum_says_whether_it_fits(server, tmp_path):
    for number, known in enumerate(({}, {"sha256": None})):
        folder = tmp_path / str(number) / "set"
        folder.mkdir(parents=True)
        (folder / "file.bin.part").write_bytes(b"of another file")
        download(item_of(server, **known), tmp_path / str(number), progress=False)
        assert only_file(folder).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == ["bytes=15-", None, None]


def test_another_part_than_was_asked_for_is_not_taken(server, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/file.bin.part").write_bytes(CONTENT[:5])
    server.headers = {"Content-Range": "bytes 7-8/9"}
    with pytest.raises(DataError, match="gives another part"):
        download(item_of(server), tmp_path, progress=False)


def test_no_space_is_told_before_anything_is_fetched(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(1, 1, 5_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"needs 0\.01 GB, .* has 0\.01 GB free; free some"):
        download(item_of(server), tmp_path, progress=False)
    assert server.requests == []


def test_a_root_that_cannot_be_written_says_so(server, tmp_path):
    (tmp_path / "set").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="cannot be written"):
        download(item_of(server), tmp_path, progress=False)


# --------------------------------------------------------------------------------- archives


def archive_of(path: Path, fill: Callable[[tarfile.TarFile], None]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        fill(tar)
    return path


def add(tar: tarfile.TarFile, name: str, content: bytes = b"x", **attributes: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in attributes.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    "member",
    [
        {"name": "../outside"},
        {"name": "inside/../../outside"},
        {"name": "/outside"},
        {"name": "link", "type": tarfile.SYMTYPE, "linkname": "good", "content": b""},
        {"name": "link", "type": tarfile.LNKTYPE, "linkname": "good", "content": b""},
        {"name": "device", "type": tarfile.CHRTYPE, "content": b""},
    ],
    ids=lambda member: f"{member['name']}-{member.get('type', b'').decode()}",
)
def test_an_unsafe_member_leaves_nothing(member, tmp_path):
    archive = archive_of(
        tmp_path / "root/a.tgz", lambda tar: (add(tar, "good"), add(tar, **member))
    )
    with pytest.raises(DataError, match="unsafe archive"):
        unpack(archive, archive.parent, 10)
    assert only_file(tmp_path) == archive
    assert list(archive.parent.iterdir()) == [archive]


def bomb(tar):
    add(tar, "zeros", bytes(5_000_000))


def many(tar):
    for number in range(21):
        add(tar, str(number), b"")


def long_name(tar):
    add(tar, "././@LongLink", bytes(1_000_000), type=tarfile.GNUTYPE_LONGNAME)


@pytest.mark.parametrize(
    ("fill", "says"),
    [
        (bomb, "unpacks to more than 1,048,596 bytes"),
        (many, "more than 20 members"),
        (long_name, "a header of 1,000,000 bytes"),
        (lambda tar: (add(tar, "twice"), add(tar, "twice")), "File exists"),
        (lambda tar: add(tar, "x" * 300), "File name too long"),
        (lambda tar: add(tar, "s", type=tarfile.GNUTYPE_SPARSE, content=b""), "neither a file"),
    ],
)
def test_an_archive_that_no_publisher_makes_leaves_nothing(fill, says, tmp_path, monkeypatch):
    archive = archive_of(tmp_path / "root/a.tgz", fill)
    monkeypatch.setattr("dgm_bench.data.archives._MOST_MEMBERS", 20)
    with pytest.raises(DataError, match=says):
        unpack(archive, archive.parent, 10)
    assert list(archive.parent.iterdir()) == [archive]


@pytest.mark.parametrize("keep", [0, 100, 30_000])
def test_a_truncated_archive_is_deleted_and_leaves_nothing(keep, tmp_path):
    noise = hashlib.shake_256(b"").digest(100_000)
    archive = archive_of(tmp_path / "a.tgz", lambda tar: add(tar, "big", noise))
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(DataError, match="truncated or corrupt"):
        unpack(archive, tmp_path, 100_000)
    assert list(tmp_path.iterdir()) == []


def test_a_fetched_archive_is_unpacked_and_removed(server, tmp_path, monkeypatch):
    packed = archive_of(tmp_path / "a.tgz", lambda tar: add(tar, "data/one/rows.npy", b"rows"))
    server.content = packed.read_bytes()
    item = item_of(server, path="data.tar.gz", size=len(server.content), unpacked=10)
    item = replace(item, sha256=hashlib.sha256(server.content).hexdigest())
    card = replace(
        data.card("power"), name="one", files=(DataFile("one/rows.npy"),), downloads=(item,)
    )
    monkeypatch.setattr(data, "CARDS", (*registry.CARDS, card))
    root = tmp_path / "root"
    root.mkdir()
    assert data.fetch("one", root, progress=False) == [root / "data/one/rows.npy"]
    assert only_file(root).read_bytes() == b"rows"
    assert data.state("one", root).status == "here"
    assert data.fetch("one", root) == [root / "data/one/rows.npy"]
    assert len(server.requests) == 1


def test_an_archive_put_there_by_hand_is_used_and_stays(tmp_path):
    packed = archive_of(tmp_path / "data.tar.gz", lambda tar: add(tar, "data/rows.npy"))
    md5 = hashlib.md5(packed.read_bytes()).hexdigest()
    item = Download(("http://127.0.0.1:9/x",), "data.tar.gz", size=1, unpacked=1, md5=md5)
    download(item, tmp_path, progress=False)
    assert (tmp_path / "data/rows.npy").read_bytes() == b"x"
    assert packed.exists()


def test_loading_without_a_network_says_how_to_get_it_by_hand(tmp_path, monkeypatch):
    card = data.card("power")
    dead = replace(card.downloads[0], urls=("http://127.0.0.1:9/x",), size=1, unpacked=1)
    monkeypatch.setattr(data, "CARDS", (replace(card, downloads=(dead,)),))
    with pytest.raises(DataError) as caught:
        data.load("power", tmp_path, progress=False)
    message = str(caught.value)
    for part in ("power/data.npy", "127.0.0.1:9", "dgm-bench data fetch power", card.manual):
        assert part in message
    assert "\n" not in message


def test_every_set_with_files_can_be_fetched_or_says_where_it_is():
    for card in registry.CARDS:
        assert card.embedded or card.manual
        # Of the resized characters no copy is published under an address of its own.
        own = card.layout or card.name == "omniglot-resized28"
        assert card.embedded or card.downloads or own
        for item in card.downloads:
            assert item.checksum
            assert all(url.startswith("https://") for url in item.urls)
