"""scripts/: the order of the jobs, what is made of a workflow, and servers that answer anything but well."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools.workflow_fixtures import EXAMPLES, with_loaders

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "scripts"


@pytest.fixture(scope="module", name="many")
def many_servers():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        import many_servers

        yield many_servers


@pytest.fixture(scope="module", name="one")
def one_server(many):
    import one_server

    return one_server


def api(title):
    return json.loads((ROOT / "tests" / "workflows" / f"DiffStyler - {title}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_prompts_are_those_of_the_shipped_workflows(name):
    shipped = json.loads((ROOT / "tests" / "workflows" / f"{EXAMPLES[name]}.json").read_text(encoding="utf-8"))
    assert json.loads((FOLDER / name).read_text(encoding="utf-8")) == with_loaders(shipped)


class Servers:
    """A board, and the jobs that servers called 'a' and 'b' take from it."""

    def __init__(self, many, folder, contents="123", styles="xy"):
        trainings = [many.Training(Path(style), folder / "loras" / style) for style in styles]
        pictures = [many.Picture(Path(content), t, folder / str(t.style)) for content in contents for t in trainings]
        self.board, self.last = many.Board(pictures, threading.Event()), {}

    def take(self, url):
        self.last[url] = self.board.take(SimpleNamespace(url=url), self.last.get(url))
        return str(self.last[url])

    def finish(self, url):
        self.board.finish(SimpleNamespace(url=url), 1.0)

    def lose(self, url):
        self.board.give_back(SimpleNamespace(url=url), f"{url} does not answer")
        del self.last[url]

    def does(self, url):
        job = self.take(url)
        self.finish(url)
        return job


def test_trainings_come_first_and_then_each_server_stays_with_a_content(many, tmp_path):
    servers = Servers(many, tmp_path)
    assert [servers.take("a"), servers.take("b")] == ["training of x", "training of y"]
    servers.finish("a")
    servers.finish("b")
    assert [servers.take("a"), servers.take("b")] == ["1 in x", "2 in x"]
    servers.finish("b")
    assert servers.take("b") == "2 in y"
    servers.finish("a")
    assert servers.take("a") == "1 in y"
    servers.finish("a")
    assert servers.take("a") == "3 in x"


def test_a_large_set_is_inverted_hardly_oftener_than_there_are_contents(many, tmp_path):
    """20 contents in 40 styles on four servers that take turns, as docs/servers.md counts them."""
    contents, styles = (range(10, 30), [f"s{i}" for i in range(40)])
    servers, inverted, made = Servers(many, tmp_path, map(str, contents), styles), 0, 0
    while servers.board.finished < servers.board.total:
        for url in "abcd":
            last = getattr(servers.last.get(url), "content", None)
            servers.take(url)
            content = getattr(servers.last[url], "content", None)
            made += content is not None
            inverted += content not in (None, last)
        for url in "abcd":
            servers.finish(url)
    assert (servers.board.total, made, inverted) == (840, 800, 20)


def test_a_lora_that_is_there_is_not_trained(many, tmp_path):
    many.write_whole(tmp_path / "loras" / "x", b"")
    servers = Servers(many, tmp_path)
    assert [servers.take("a"), servers.take("b")] == ["training of y", "1 in x"]
    assert servers.board.total == 7


def test_a_lost_job_is_the_next_that_another_server_takes(many, tmp_path, capsys):
    servers = Servers(many, tmp_path)
    servers.take("a")
    servers.does("b")
    servers.lose("a")
    assert servers.take("b") == "training of x"
    assert "a does not answer; training of x goes to another server" in capsys.readouterr().out


def test_a_job_over_which_servers_die_is_to_blame_in_the_end(many, tmp_path):
    servers = Servers(many, tmp_path, contents="1", styles="x")
    for url in "abc":
        assert servers.take(url) == "training of x"
        servers.lose(url)
    assert servers.take("d") == "None"
    (failure,) = servers.board.failures
    assert failure == "training of x: c: c does not answer; servers were lost over this job 3 times"


def test_pictures_of_a_style_that_cannot_be_trained_are_left_and_the_rest_is_made(many, tmp_path):
    servers = Servers(many, tmp_path)
    servers.take("a")
    servers.board.fail(SimpleNamespace(url="a"), "why")
    done = [servers.does("a") for _ in range(4)]
    assert done == ["training of y", "1 in y", "2 in y", "3 in y"]
    assert servers.take("a") == "None"
    assert (servers.board.finished, servers.board.total) == (4, 8)


def test_what_ends_one_thread_unforeseen_ends_all(many, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(many.Training, "run", full)
    board = Servers(many, tmp_path, styles="x").board
    with pytest.raises(OSError, match="no space left"):
        many.run([SimpleNamespace(url="a"), SimpleNamespace(url="b")], board, None, 1.0)
    assert board.over.is_set()


@pytest.mark.parametrize("returns", [True, False])
def test_a_lost_server_is_used_again_when_it_is_back(many, one, tmp_path, monkeypatch, returns):
    """Server a is lost at its first job; b is at one of its own until a is back, or does all the rest."""
    done, back = [], threading.Event()

    def run(job, server, _):
        if server.url == "a" and not back.is_set():
            raise one.ServerLost("a does not answer")
        done.append((server.url, str(job)))
        until = time.monotonic() + 10.0
        while returns and server.url == "b" and "a" not in dict(done) and time.monotonic() < until:
            time.sleep(0.01)

    def comes_back(_):
        back.set()
        return returns

    for kind in (many.Training, many.Picture):
        monkeypatch.setattr(kind, "run", run)
    board = Servers(many, tmp_path).board
    many.run([SimpleNamespace(url=url, comes_back=comes_back) for url in "ab"], board, None, 1.0)
    assert len({job for _, job in done}) == len(done) == board.finished == board.total == 8
    assert ("a" in dict(done)) is returns


def test_a_file_appears_when_it_is_whole(many, tmp_path, monkeypatch):
    def dies(*_):
        raise KeyboardInterrupt

    training = many.Training(Path("x"), tmp_path / "lora")
    picture = many.Picture(Path("a.b.png"), training, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", dies)
        with pytest.raises(KeyboardInterrupt):
            many.write_whole(tmp_path / "a.b.png", b"data")
    assert not picture.done()
    many.write_whole(tmp_path / "a.png", b"data")
    assert not picture.done()
    many.write_whole(tmp_path / "a.b.webp", b"data")
    assert picture.done()


@pytest.mark.parametrize(
    ("files", "words"),
    [([], "holds none of .jpg"), (["a.png", "a.jpg"], "several files called a"), (None, "there is no folder")],
)
def test_folders_that_do_not_fit(many, tmp_path, files, words):
    folder = tmp_path / "pictures"
    for name in files or ():
        many.write_whole(folder / name, b"")
    folder.mkdir(exist_ok=True) if files == [] else None
    with pytest.raises(many.Problem, match=words):
        many.files_of(folder, {".png", ".jpg"})


def workflow(one, folder, prompt):
    (folder / "api.json").write_text(json.dumps(prompt), encoding="utf-8")
    return one.Workflow(folder / "api.json")


@pytest.mark.parametrize(
    ("title", "node", "kind"),
    [("one style", "13", "DiffStyler_InjectedSampler"), ("any sampler", "19", "LoraLoaderModelOnly"),
     ("short clip", "16", "DiffStyler_InjectedSampler")],
)  # fmt: skip
def test_the_picture_takes_the_lora_from_its_file(one, tmp_path, title, node, kind):
    flow = workflow(one, tmp_path, with_loaders(api(title)))
    made = flow.picture("c.png", "l.safetensors")
    assert made[node]["class_type"] == kind
    assert made[node]["inputs"]["lora_name"] == "l.safetensors"
    assert "lora" not in made[node]["inputs"]
    classes = {one["class_type"] for one in made.values()}
    assert not classes & {"DiffStyler_TrainStyleLoRA", "PreviewImage", "DiffStyler_FrameConsistency"}
    (loaded,) = [node for node in made.values() if node["class_type"] in one.LOADERS]
    assert "many_servers/c.png" in loaded["inputs"].values()
    trained = flow.training("s.png", "place")
    assert {trained[key]["class_type"] for key in trained} >= {"DiffStyler_TrainStyleLoRA", "SaveLoRA", "LoadImage"}
    assert not [node for node in trained.values() if node["class_type"] in ("DiffStyler_DDIMInvert", "LoadVideo")]


def over_a_wire(prompt):
    prompt["13"]["class_type"] = "DiffStyler_RegionalStyle"
    del prompt["13"]["inputs"]["lora_name"]


def more_than_the_lora(prompt):
    prompt["8"]["inputs"]["text"] = ["10", 2]


def an_example(prompt):
    prompt["2"] = api("one style")["2"]


def untitled(prompt):
    del prompt["15"]["_meta"]


def as_saved(prompt):
    prompt["nodes"] = []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (over_a_wire, "node 13 .DiffStyler_RegionalStyle. takes the LoRA over a wire only"),
        (more_than_the_lora, "uses more of node 10 than its LoRA"),
        (an_example, "'Content picture' is a DiffStyler_ExamplePicture: put Load Image"),
        (untitled, "has 0 nodes titled, or of class, 'Result'"),
        (as_saved, "is not in API form"),
    ],
)
def test_workflows_that_do_not_fit(one, tmp_path, change, words):
    prompt = with_loaders(api("one style"))
    change(prompt)
    with pytest.raises(one.Problem, match=words):
        workflow(one, tmp_path, prompt).picture("c.png", "l.safetensors")


@contextmanager
def answering(one, answers, asked=None):
    """A server that answers a path with (status, words); a list gives one answer after another, the last for ever.

    asked: gets the paths and contents that it was asked.
    """
    asked = [] if asked is None else asked

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append((self.path, body.decode("utf-8", "replace")))
            given = next(given for path, given in answers.items() if self.path.startswith(path))
            status, words = given if isinstance(given, tuple) else given.pop(0) if len(given) > 1 else given[0]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(words.encode())

        do_POST = do_GET

        def log_message(self, *_):
            """Nothing to the terminal."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield one.Server(f"http://127.0.0.1:{http.server_port}", threading.Event())
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


QUEUED = {"/prompt": (200, '{"node_errors": {}}'), "/queue": (200, '{"queue_running": [], "queue_pending": []}')}
ERRORS = {"4": {"class_type": "SaveImage", "errors": [{"message": "missing", "details": "images"}]}}
REFUSED = json.dumps({"error": {"message": "invalid prompt", "details": ""}, "node_errors": ERRORS})


@pytest.mark.parametrize(
    ("answers", "error", "words"),
    [
        ({"/prompt": (400, REFUSED)}, "JobFailed", r"node 4 \(SaveImage\) is not valid: missing: images"),
        ({"/prompt": (200, REFUSED), "/queue": (200, ""), "/interrupt": (200, "")}, "JobFailed", "node 4"),
        ({"/prompt": (413, "too large")}, "JobFailed", "refused: too large"),
        ({"/prompt": (200, "<html>")}, "JobFailed", r"/prompt is no ComfyUI: it answered b'<html>'"),
        ({"/prompt": (502, "bad gateway")}, "ServerLost", "does not answer: HTTP Error 502"),
        ({**QUEUED, "/history": (200, "{}")}, "ServerLost", "was restarted, or its queue was cleared"),
        ({**QUEUED, "/queue": (503, "")}, "ServerLost", "HTTP Error 503"),
    ],
)
def test_what_a_server_answers_is_told_apart(one, monkeypatch, answers, error, words):
    monkeypatch.setattr(one, "LOOK_AGAIN", 0.01)
    monkeypatch.setattr(one, "SILENCE", 0.1)
    with answering(one, answers) as server, pytest.raises(getattr(one, error), match=words):
        server.run({})


def test_a_short_silence_is_waited_for(one, monkeypatch):
    monkeypatch.setattr(one, "LOOK_AGAIN", 0.01)
    monkeypatch.setattr(one, "uuid", SimpleNamespace(uuid4=lambda: "p"))
    entry = {"p": {"status": {"messages": []}, "outputs": {"1": {}}}}
    answers = {**QUEUED, "/queue": [(502, ""), (502, ""), QUEUED["/queue"]], "/history": (200, json.dumps(entry))}
    with answering(one, answers) as server:
        assert server.run({}) == {"1": {}}


def test_a_prompt_that_another_server_has_now_is_taken_back_from_one_that_was_only_silent(one, monkeypatch):
    monkeypatch.setattr(one, "LOOK_AGAIN", 0.01)
    monkeypatch.setattr(one, "SILENCE", 0.1)
    answers, asked = {**QUEUED, "/queue": (503, ""), "/interrupt": (200, "")}, []
    with answering(one, answers, asked) as server:
        with pytest.raises(one.ServerLost):
            server.run({"1": {}})
        prompt_id = json.loads(dict(asked)["/prompt"])["prompt_id"]
        answers["/queue"] = QUEUED["/queue"]
        asked.clear()
        assert server.comes_back(5.0)
        assert [(path, json.loads(body)) for path, body in asked if body] == [
            ("/queue", {"delete": [prompt_id]}),
            ("/interrupt", {"prompt_id": prompt_id}),
        ]


def test_a_server_whose_loaders_do_not_list_what_is_sent_is_told_what_to_do(one):
    answers = {"/upload/image": (200, '{"name": "empty.safetensors"}'), "/models/loras": (200, '["other"]')}
    with answering(one, answers) as server, pytest.raises(one.Problem, match=r"extra_model_paths\.yaml, and restart"):
        server.require_loras()


def test_a_server_that_comes_back_is_used_again_and_one_that_stays_away_is_not(one):
    with answering(one, QUEUED) as server:
        assert server.comes_back(5.0)
        server.url = "http://127.0.0.1:9"
        assert not server.comes_back(0.0)
        assert "127.0.0.1:9 does not answer" in server.silence()
