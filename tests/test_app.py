"""app.py as people start it: its sentences when it cannot, and how it ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

import app as app_module
from model.config import EngineConfig
from tests.helpers.api import MARLOW, Page, parse_events, wait_until
from tests.helpers.fake_model import FakeModel
from tests.helpers.fake_server import write_bots
from tests.helpers.gguf_models import write_llama
from tests.helpers.server_process import ROOT, EventSocket, Server
from tests.helpers.stand_in_engine import StandInEngine
from tests.helpers.stand_in_hub import StandInHub
from tests.helpers.tiny_models import TINY, random_tensors, write_model
from tests.load_streams import cpu_seconds
from webui.storage.store import Store


def start(*arguments):
    """Run main() here, with what it refuses before anything is served."""
    return app_module.main(["--no-browser", *map(str, arguments)], lambda *a, **k: FakeModel())


def what_is_loaded(*arguments):
    """What the loader is called with, and the arguments as they were understood."""
    seen = {}

    def load(path, config, **options):
        seen.update(path=path, config=config, **options)
        raise ValueError("enough")

    understood = app_module.parse_arguments(["--no-browser", *map(str, arguments)])
    slot, downloads = app_module.make_slot(understood, load)
    slot.load_first(app_module.first_model(understood, downloads), lambda what, share: None, print)
    assert "enough" in slot.wait().problem
    slot.close()
    return SimpleNamespace(**seen, understood=understood)


def sentence(capsys):
    said = capsys.readouterr().err.strip()
    assert said.startswith("Parlor: ") and "Traceback" not in said and len(said.splitlines()) == 1
    return said


def test_help_names_every_option():
    said = subprocess.run([sys.executable, "app.py", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0
    for option in ("-d", "--model", "--host", "--port", "--device", "--max-seq-len", "--cache", "--threads",
                   "--sessions-dir", "--no-browser", "--password", "--exact", "--draft",
                   "--no-speculation", "--gpu-split", "--allow-host", "--no-model", "--models-dir",
                   "--idle-unload", "--api-key", "--allow-origin", "--engine", "--engine-key",
                   "--engine-header", "--lora", "--log",
                   "--behind-proxy"):
        assert option in said.stdout
    assert "default:" in said.stdout and said.stderr == ""


@pytest.mark.parametrize("arguments", [
    ["--port", "65536"], ["--port", "x"], ["--max-seq-len", "0"], ["--threads", "-1"], ["--device", "tpu"],
    ["--gpu-split", "20,x"], ["--gpu-split", "0"], ["--threads", "257"], ["--max-seq-len", "31"],
    ["--gpu-split", "20", "--device", "cpu"], ["--draft", "small", "--no-speculation"],
    ["--idle-unload", "0"], ["--idle-unload", "soon"], ["--no-model", "-d", "x"], ["--hub", "a/b", "-d", "x"],
    ["--lora", "a=x", "--lora", "a=y"], ["--lora", "=x"], ["--cache", "q1"], ["--nonsense"],
    ["--max-seq-len", "1e3"], ["--behind-proxy", "nginx"]])
def test_arguments_out_of_range_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as refused:
        start(*arguments)
    assert refused.value.code == 2 and arguments[0].split()[0] in capsys.readouterr().err


def test_all_arguments_reach_the_model(tmp_path):
    seen = what_is_loaded(
        "-d", tmp_path, "--device", "cuda", "--gpu-split", "20,12.5", "--max-seq-len", "512",
        "--cache", "fp32", "--threads", "2", "--exact", "--draft", tmp_path / "small",
        "--models-dir", tmp_path / "m", "--lora", f"tale={tmp_path / 'a'}", "--lora", tmp_path / "b.gguf",
        "--lora", tmp_path / "x=1")
    assert seen.path == tmp_path
    assert seen.config == EngineConfig(device="cuda", gpu_split=(20.0, 12.5), max_seq_len=512, threads=2,
                                       cache="fp32", exact=True, draft=tmp_path / "small",
                                       adapters=(("tale", tmp_path / "a"), ("b", tmp_path / "b.gguf"),
                                                 ("x=1", tmp_path / "x=1")))
    assert what_is_loaded("-d", tmp_path, "--no-speculation").config == EngineConfig(speculation=False)
    assert what_is_loaded("-d", tmp_path).config == EngineConfig(), "no default stands in two places"


def test_it_starts_without_a_model_and_lists_those_of_its_folder(tmp_path):
    write_bots(tmp_path / "bots")
    models = tmp_path / "new" / "models"
    with Server(tmp_path, "--no-model", "--models-dir", str(models), "--idle-unload", "5") as server:
        client = server.client()
        assert client.get("/api/status").json["slot"]["phase"] == "empty"
        write_model(models / "tiny")
        wait_until(lambda: "tiny" in [one["name"] for one in client.get("/api/models").json["models"]], 60)
        wait_until(lambda: not client.get("/api/models").json["looking"], 60)
        by_name = {one["name"]: one for one in client.get("/api/models").json["models"]}
        assert by_name["tiny"]["place"] == "Models folder" and by_name["tiny"]["fits"]
        assert by_name["starter"]["place"] == "Comes with Parlor"
        client.post(f"/api/models/{by_name['tiny']['id']}/load", json={})
        wait_until(lambda: client.get("/api/status").json["slot"]["phase"] == "ready", 60)
        page = Page(client, MARLOW)
        assert page.say("hello")[0]["text"]
        assert server.end()[0] == 0


def test_a_model_of_a_hub_is_got_before_the_start_and_what_is_wrong_is_one_sentence(tmp_path):
    write_bots(tmp_path / "bots")
    hub = StandInHub()
    write_llama(tmp_path / "made.gguf", TINY, random_tensors(TINY))
    hub.repos["owner/Tiny"] = {"Tiny-Q4_0.gguf": (tmp_path / "made.gguf").read_bytes()}
    hub.break_after = [1000]

    def running(source):
        return Server(tmp_path, "--hub", source, "--models-dir", str(tmp_path / "models"))

    with hub.running() as address, mock.patch.dict(os.environ, HF_ENDPOINT=address):
        for source, wrong in (("owner/Tiny:Q8_0", "has no Q8_0; it has Q4_0"), ("nonsense", "owner/name")):
            with pytest.raises(RuntimeError, match=f"ended: Parlor: .*{wrong}.*\n$"):
                running(source)
        with running("owner/Tiny") as server:
            assert server.client().get("/api/status").json["slot"]["name"] == "Tiny-Q4_0"
            assert (tmp_path / "models" / "owner" / "Tiny" / "Tiny-Q4_0.gguf").is_file()


def test_with_an_engine_and_no_model_it_begins_with_that_engines_first(tmp_path):
    (tmp_path / "key").write_text("a-key-of-its-own\n", encoding="utf-8")
    with StandInEngine("small").running() as engine:
        engine.key = "a-key-of-its-own"
        options = ["--engine", f"Box={engine.url}", "--engine-key", f"Box={tmp_path / 'key'}",
                   "--engine-header", "X-Team: red"]
        with Server(tmp_path / "s", *options) as server:
            client = server.client()
            wait_until(lambda: client.get("/api/status").json["slot"]["name"] == "small (Box)", 60)
            assert Page(client, MARLOW).say("hello")[0]["text"] == "You said: hello"
            assert server.end()[0] == 0
    assert all(headers["x-team"] == "red" for _path, headers, _body in engine.requests)


def test_an_engine_that_is_not_there_at_the_start_is_told_and_found_later(tmp_path):
    engine = StandInEngine("small")
    with engine.running():
        pass  # its port is free now
    with Server(tmp_path / "s", "--engine", engine.url, "--fail", "it does not answer") as server:
        client = server.client()
        wait_until(lambda: "cannot be reached" in client.get("/api/status").json["slot"]["problem"], 60)
        assert client.get("/api/status").json["slot"]["phase"] == "empty"
        with engine.running():
            def offered():
                return [one for one in client.get("/api/models").json["models"] if one["host"] == engine.host]

            wait_until(offered, 60)
            client.post(f"/api/models/{offered()[0]['id']}/load", json={})
            wait_until(lambda: client.get("/api/status").json["slot"]["phase"] == "ready", 60)
            assert Page(client, MARLOW).say("hello")[0]["text"] == "You said: hello"


@pytest.mark.parametrize(("options", "told"), [
    (["--engine", "ftp://box"], "begins with http://"),
    (["--engine", "http://box", "--engine", "Box=http://box/v1"], "an address twice"),
    (["--engine", "http://a", "--engine", "http://b", "--engine-header", "X: 1"], "is for one engine"),
    (["--engine-header", "X-A: 1"], "--engine-header is for one engine"),
    (["--engine", "http://a", "--engine-header", "nonsense"], "no colon"),
    (["--engine", "http://a", "--engine-key", "EMPTY"], "holds no key"),
    (["--engine", "http://a", "--engine-key", "nowhere"], "No such file")])
def test_what_is_wrong_with_an_engines_options_is_one_sentence(tmp_path, monkeypatch, capsys, options, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").write_text("\n", encoding="utf-8")
    assert start("--sessions-dir", tmp_path / "s", "--port", "0", *options) == 1
    assert told in sentence(capsys)


def test_every_path_may_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "model").mkdir()
    seen = what_is_loaded("--model=~/model", "--draft=~/small", "--sessions-dir=~/s", "--api-key=~/keys",
                          "--models-dir=~/m", "--lora=~/a", "--lora=b=~/c")
    assert (seen.path, seen.config.draft) == (tmp_path / "model", tmp_path / "small")
    assert seen.config.adapters == (("a", tmp_path / "a"), ("b", tmp_path / "c"))
    understood = seen.understood
    assert (understood.sessions_dir, understood.api_key) == (tmp_path / "s", tmp_path / "keys")
    assert (tmp_path / "m").is_dir()
    for file in [ROOT / "app.py", *(ROOT / "model").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]:
        assert "type=Path" not in file.read_text(encoding="utf-8"), f"{file}: see path_option()"


def test_a_model_that_cannot_be_loaded_is_told_and_another_can_be_chosen(tmp_path, monkeypatch):
    """On a console without the characters of its name, too, as on Windows: they come out escaped."""
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    monkeypatch.setenv("PYTHONUTF8", "0")
    write_bots(tmp_path / "bots")
    (tmp_path / "模型").mkdir()
    with Server(tmp_path, "-d", str(tmp_path / "模型"), "--fail", "模型") as server:
        said = [server.process.stderr.readline() for _ in range(2)]
        assert said == ["\n", "Parlor: \\u6a21\\u578b was not loaded: it is odd\n"]
        client = server.client()
        slot = client.get("/api/status").json["slot"]
        assert (slot["phase"], slot["problem"]) == ("empty", "模型 was not loaded: it is odd")
        wait_until(lambda: not client.get("/api/models").json["looking"], 60)
        starter = next(one for one in client.get("/api/models").json["models"] if one["name"] == "starter")
        client.post(f"/api/models/{starter['id']}/load", json={})
        wait_until(lambda: client.get("/api/status").json["slot"]["phase"] == "ready", 60)
        assert Page(client, MARLOW).say("hello")[0]["text"]
        assert server.end()[0] == 0


def test_a_name_that_is_no_hosts_is_one_sentence(tmp_path, capsys):
    assert start("--allow-host", "http://box", "--sessions-dir", tmp_path / "s") == 1
    assert "--allow-host 'http://box'" in sentence(capsys)


def test_keys_that_are_none_or_too_short_are_one_sentence(tmp_path, capsys):
    for text, said in (("", "holds no key"), ("short\n", "shorter than 16 characters")):
        (tmp_path / "keys").write_text(text, encoding="utf-8")
        assert start("--api-key", tmp_path / "keys", "--sessions-dir", tmp_path / "s") == 1
        assert "--api-key" in (told := sentence(capsys)) and said in told


def test_a_port_that_is_taken_is_one_sentence(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert start("--port", taken.getsockname()[1], "--sessions-dir", tmp_path) == 1
    assert "--port" in sentence(capsys)


def test_an_unknown_model_folder_is_one_sentence(tmp_path, capsys):
    assert start("-d", tmp_path / "nowhere", "--port", "0", "--sessions-dir", tmp_path / "s") == 1
    assert "nowhere" in sentence(capsys)


def test_a_folder_in_use_is_one_sentence_that_says_by_whom(tmp_path, capsys):
    store = Store(tmp_path)
    assert start("--port", "0", "--sessions-dir", tmp_path) == 1
    assert f"process {os.getpid()}" in sentence(capsys)
    store.close()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert start("--port", "0", "--sessions-dir", tmp_path / "file" / "sessions") == 1
    assert "file" in sentence(capsys)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_sentence(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert start("--port", "0", "--sessions-dir", tmp_path / "sessions") == 1
    assert "no permission" in sentence(capsys)


def test_without_a_password_it_does_not_listen_beyond_this_machine(tmp_path, capsys):
    assert start("--host", "0.0.0.0", "--port", "0", "--sessions-dir", tmp_path) == 1
    assert "--password" in sentence(capsys)


def test_a_short_password_is_refused(tmp_path, capsys):
    (tmp_path / "word").write_text("short\n", encoding="utf-8")
    assert start("--password", tmp_path / "word", "--port", "0", "--sessions-dir", tmp_path) == 1
    said = sentence(capsys)
    assert "at least 8" in said and "short" not in said


def test_a_password_file_that_is_missing_is_one_sentence(tmp_path, capsys):
    assert start("--password", tmp_path / "none", "--port", "0", "--sessions-dir", tmp_path) == 1
    assert "none" in sentence(capsys)


def test_an_address_of_another_machine_is_one_sentence(tmp_path, capsys):
    (tmp_path / "word").write_text("long enough\n", encoding="utf-8")
    password = ("--password", tmp_path / "word")
    assert start("--host", "192.0.2.1", *password, "--port", "0", "--sessions-dir", tmp_path) == 1
    assert "192.0.2.1" in sentence(capsys)


def test_it_starts_serves_and_ends_with_every_word_kept(tmp_path):
    """One real process: a page, eight readers of two replies, SIGTERM in the middle, and a second start."""
    write_bots(tmp_path / "bots")
    with Server(tmp_path, "--delay", "0.1") as server:  # 400 words would take 40 s
        client = server.client()
        assert client.get("/api/status").json["model"]["name"] == "fake-1M"
        pages = [Page(client, MARLOW) for _ in range(2)]
        replies = [page.send("POST", "/messages", text="long story")["reply"] for page in pages]
        readers = [EventSocket(server.port, replies[number % 2]["reply_id"]) for number in range(8)]
        for reader in readers:
            reader.read_until(b"word3")
        code, _seconds = server.end()
        seen = {number: parse_events(reader.read_to_end()) for number, reader in enumerate(readers)}
        said = server.process.stderr.read()
    assert code == 0 and "Traceback" not in said, (code, said)
    for number, events in seen.items():
        text = "".join(event.data["text"] for event in events if event.name == "text")
        assert events[-1].name == "error" and events[-1].data["partial"]["finish_reason"] == "interrupted"
        assert events[-1].data["partial"]["text"].startswith("word0 word1") and text
        assert events[-1].data["partial"]["text"] == text, number
    with Server(tmp_path) as server:
        for page in pages:
            session = server.client().get(page.url).json["session"]
            texts = [message["text"] for message in session["messages"]]
            assert texts == ["long story", seen[pages.index(page)][-1].data["partial"]["text"]]
        assert server.end()[0] == 0


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads the time of a process from /proc")
def test_a_server_that_nobody_asks_takes_no_time(tmp_path):
    with Server(tmp_path) as server:
        before = cpu_seconds(server.process.pid)
        time.sleep(2)
        assert cpu_seconds(server.process.pid) - before < 0.5


def test_a_reader_that_never_reads_is_cut_off_and_harms_nobody(tmp_path):
    """Six sockets ask for a long reply and never read a byte; another reader gets everything."""
    write_bots(tmp_path / "bots")
    with Server(tmp_path, "--delay", "0.001") as server:
        page = Page(server.client(), MARLOW)
        reply = page.send("POST", "/messages", text="long story")["reply"]
        deaf = [EventSocket(server.port, reply["reply_id"], buffer=1024) for _ in range(6)]
        (message,) = page.finish(reply)
        assert message["text"].endswith("word399")
        assert server.end()[0] == 0
        for reader in deaf:
            reader.socket.close()


def test_the_second_server_on_a_folder_says_who_has_it(tmp_path):
    write_bots(tmp_path / "bots")
    with Server(tmp_path) as server:
        with pytest.raises(RuntimeError, match=rf"process \d+, http://127.0.0.1:{server.port}/"):
            Server(tmp_path)
        assert server.client().get("/api/status").status_code == 200


def test_progress_is_a_line_for_each_thing_where_nobody_watches(capsys):
    progress = app_module.Progress()
    steps = (("Compiling 1/2: a", 0.5), ("Compiling 2/2: b", 1.0), ("Loading", 0.1), ("Loading", 1.0))
    for what, done in steps:
        progress(what, done)
    assert capsys.readouterr().out == "Compiling 1/2: a\nCompiling 2/2: b\nLoading\n"
