"""Files named by URLs: streams of a local server, and of a file system in memory."""

import gc
import gzip
import io
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.sources import read, texts, wrong
from builders.spreadsheets import xlsx
from fsspec.implementations.memory import MemoryFileSystem

from palavra.data import remote
from palavra.data.config import ReadConfig, SourceConfig
from palavra.data.conll import read_tagged
from palavra.data.record_files import record_sources
from palavra.data.records import read_records
from palavra.data.remote import RemoteFile
from palavra.data.sources import source_bytes, source_stamp
from palavra.data.squad import read_questions
from palavra.errors import PalavraError
from palavra.inference.inputs import open_input, read_texts
from palavra.output import check_local

# The garbage collector may meet the connection of an answer that failed before the stream that closes it.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <function Connection.__del__:pytest.PytestUnraisableExceptionWarning"
)
ROWS = [{"text": "olá", "label": "sim"}, {"text": "não", "label": "não"}]
TABLE = "text,label\nolá,sim\nnão,não\n"


class Handler(SimpleHTTPRequestHandler):
    """A server that gives parts of files under /parts, and refuses and cuts others."""

    asked: ClassVar[list[str]] = []

    def send_head(self) -> Any:
        Handler.asked.append(self.path)
        if "/secret/" in self.path:
            self.send_error(403)
            return None
        path = Path(self.translate_path(self.path))
        if "/cut/" in self.path and path.is_file():
            self.send_response(200)
            self.send_header("Content-Length", str(path.stat().st_size + 99))
            self.end_headers()
            return path.open("rb")
        if "/parts/" not in self.path or not path.is_file():
            return super().send_head()
        content = path.read_bytes()
        first, _, last = self.headers.get("Range", f"bytes=0-{len(content) - 1}").removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last or len(content)) + 1]
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        return io.BytesIO(part)

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("served")
    for name in ("plain", "parts", "secret", "cut"):
        into = top / name
        into.mkdir()
        (into / "a.csv").write_text(TABLE, encoding="utf-8")
        (into / "b.csv.gz").write_bytes(gzip.compress(TABLE.encode()))
        (into / "c.csv.zst").write_bytes(pa.compress(TABLE.encode(), codec="zstd", asbytes=True))
        (into / "d.jsonl").write_text('{"text": "olá", "label": "sim"}\n{"text": "não", "label": "não"}\n', "utf-8")
        (into / "e.json").write_text('{"data": [["text", "label"], ["olá", "sim"], ["não", "não"]]}', "utf-8")
        pq.write_table(pa.Table.from_pylist(ROWS), into / "f.parquet")
        xlsx(into / "g.xlsx", {"Folha": [["text", "label"], ["olá", "sim"], ["não", "não"]]})
        (into / "h.txt").write_text("olá\nnão\n", "utf-8")
        (into / "i.conll").write_text("olá B\nmundo O\n", "utf-8")
        (into / "odd").write_text(TABLE, "utf-8")
    return top


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()
    gc.collect()  # while the warning is not an error


@pytest.fixture
def stored(folder: Path) -> Iterator[str]:
    """A folder of a file system that fsspec knows."""

    class Stored(MemoryFileSystem):  # type: ignore[misc]
        protocol = ("stored",)
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return "/" + path.rpartition("://")[2].strip("/")

    fsspec.register_implementation("stored", Stored, clobber=True)
    for path in (folder / "plain").iterdir():
        Stored().pipe(f"/top/plain/{path.name}", path.read_bytes())
    Stored().pipe("/top/plain/.hidden.txt", b"x")
    yield "stored:///top"
    Stored.store.clear()


def values(url: str, **reading: Any) -> list[dict[str, Any]]:
    return [record.values for record in read_records(url, ReadConfig(**reading))]


def refused(url: str, **reading: Any) -> str:
    with pytest.raises(PalavraError) as caught:
        values(url, **reading)
    assert "\n" not in str(caught.value)
    return str(caught.value)


RECORDS = ["a.csv", "b.csv.gz", "c.csv.zst", "d.jsonl", "e.json", "f.parquet", "g.xlsx"]


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("kind", ["plain", "parts", "stored"])
def test_a_url_gives_what_the_file_gives(kind: str, name: str, server: str, stored: str) -> None:
    url = f"{stored}/plain/{name}" if kind == "stored" else f"{server}/{kind}/{name}"
    assert values(url) == ROWS
    assert texts(url) == ["olá", "não"]
    assert [record.where.startswith(url) for record in read_records(url)] == [True, True]
    assert [each.file for each in read(url)] == [url, url]
    assert source_bytes(SourceConfig(sources=(url,))) > 0


def test_other_readers_take_urls(server: str) -> None:
    assert values(f"{server}/plain/odd", format="csv") == ROWS
    assert [each.words for each in read_tagged(f"{server}/plain/i.conll")] == [("olá", "mundo")]
    assert list(read_texts(*open_input(f"{server}/plain/h.txt"))) == ["olá", "não"]
    assert texts(f"{server}/plain/h.txt", documents="line") == ["olá", "não"]
    with pytest.raises(PalavraError, match=r"/plain/e\.json:data\[0\]: a JSON list, not an object"):
        list(read_questions(f"{server}/plain/e.json"))


def test_a_folder_and_a_glob_are_many_files(server: str, stored: str) -> None:
    expected = ["a.csv", "b.csv.gz", "c.csv.zst", "d.jsonl", "f.parquet", "g.xlsx", "h.txt"]
    for source in (f"{stored}/plain", f"{server}/plain/"):
        found = list(dict.fromkeys(each.file.rpartition("/")[2] for each in read(source)))
        assert found == expected
        assert [each.rpartition("/")[2] for each in record_sources(source)] == RECORDS
    assert list(dict.fromkeys(each.file for each in read(f"{stored}/plain/*.txt"))) == [f"{stored}/plain/h.txt"]
    assert record_sources(f"{stored}/**/*.json") == [f"{stored}/plain/e.json"]
    for missing in (f"{stored}/x*", f"{stored}/x", f"{server}/x/"):
        assert wrong(missing).startswith(f"{missing}: ")


def test_another_content_has_another_stamp(stored: str, server: str) -> None:
    config = SourceConfig(sources=(f"{stored}/plain", f"{server}/plain/a.csv"))
    before = source_stamp(config)
    assert source_stamp(config) == before
    fsspec.filesystem("stored").pipe("/top/plain/a.csv", b"text\nx\n")
    assert source_stamp(config) != before


def test_a_stream_is_not_read_whole(server: str, folder: Path) -> None:
    (folder / "plain" / "long.csv").write_text("text\n" + "x\n" * 20_000_000, encoding="utf-8")
    rows = read_records(f"{server}/plain/long.csv")
    assert next(rows).values == {"text": "x"}
    rows.close()  # type: ignore[attr-defined]
    (folder / "plain" / "long.csv").unlink()


def test_what_a_server_says_is_one_line(server: str) -> None:
    assert refused(f"{server}/plain/x.csv") == f"{server}/plain/x.csv: no such file or folder there"
    assert f"{server}/secret/a.csv: access is denied (403" in refused(f"{server}/secret/a.csv")
    assert f"{server}/secret/f.parquet: access is denied (403" in refused(f"{server}/secret/f.parquet")
    for name in RECORDS:
        url = f"{server}/cut/{name}"
        assert refused(url).startswith(f"{url}: "), name
    assert refused("http://127.0.0.1:9/a.csv").startswith("http://127.0.0.1:9/a.csv: cannot be opened (Cannot connect")
    assert "unknown kind of file; it must be .csv" in refused(f"{server}/plain/odd")
    assert refused("klingon://a/b.csv").startswith("klingon://a/b.csv: cannot be opened (Protocol not known")
    assert refused("klingon://a/b.csv", split="x").startswith("klingon://a/b.csv: cannot be opened")


def test_secrets_of_a_url_are_not_shown(server: str) -> None:
    url = f"{server.replace('//', '//user:pass@')}/plain/a.csv?token=secret"
    assert RemoteFile(url) == f"{server}/plain/a.csv"
    assert RemoteFile(url).url == url
    assert values(f"{server}/plain/a.csv?token=secret") == ROWS
    assert "secret" not in refused(f"{server}/plain/x.csv?token=secret")


@pytest.mark.parametrize("url", ["https://a/b.csv", "s3://a/b.csv", "gs://a/b.csv"])
@pytest.mark.parametrize("missing", ["fsspec", "aiohttp"])
def test_a_missing_library_is_named(url: str, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing == "aiohttp" and not url.startswith("http"):
        pytest.skip("the file systems of pyarrow do without")
    remote._http_options.cache_clear()
    monkeypatch.setitem(sys.modules, missing, None)
    assert refused(url).startswith(f"{url}: needs pip install 'palavra[remote]'")


@pytest.mark.parametrize("url", ["s3://a/b", "https://a/b.npy", "gs://a"])
def test_outputs_are_local(url: str) -> None:
    with pytest.raises(PalavraError, match="is written to a folder or file of this machine"):
        check_local(Path(url))
