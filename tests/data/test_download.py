"""Downloads from a small server on this machine: mirrors, checksums, breaks, archives."""

import hashlib
import io
import shutil
import tarfile
import threading
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dgm_bench import data
from dgm_bench.data import registry
from dgm_bench.data.cards import DataFile, Download
from dgm_bench.data.download import download, unpack
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
        body, begin = server.content, 0
        if server.with_range and (wanted := self.headers.get("Range")):
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.end_headers()
                return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(body) - begin))
        self.end_headers()
        sent = server.break_after.pop(0) if server.break_after else None
        self.wfile.write(body[begin : None if sent is None else begin + sent])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.content, running.with_range = CONTENT, True
        running.requests, running.break_after = [], []
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
    assert left.stat().st_size > 0
    download(item_of(server), tmp_path, progress=False)
    assert only_file(tmp_path).read_bytes() == CONTENT
    assert server.requests[-1][1] == f"bytes={2 * (1 << 20)}-"


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
        unpack(archive, archive.parent)
    assert only_file(tmp_path) == archive
    assert list(archive.parent.iterdir()) == [archive]


@pytest.mark.parametrize("keep", [0, 100, 30_000])
def test_a_truncated_archive_is_deleted_and_leaves_nothing(keep, tmp_path):
    noise = hashlib.shake_256(b"").digest(100_000)
    archive = archive_of(tmp_path / "a.tgz", lambda tar: add(tar, "big", noise))
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(DataError, match="truncated or corrupt"):
        unpack(archive, tmp_path)
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
            # Omniglot's file is known by git's checksum, which its loader compares.
            assert item.sha256 or item.md5 or any(file.git_blob for file in card.files)
            assert all(url.startswith("https://") for url in item.urls)
