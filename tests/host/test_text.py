"""What a working node says to the page that queued it."""

from __future__ import annotations

import pytest
from comfy_execution.utils import CurrentNodeContext
from server import PromptServer

pytest_plugins = ("guards",)


class Watched:
    """In place of the server: keeps what is sent."""

    def __init__(self, client_id):
        self.client_id, self.sent = client_id, []

    def send_sync(self, event, data, sid=None):
        self.sent.append((event, data, sid))


@pytest.fixture
def watched(monkeypatch):
    def put(client_id="page"):
        server = Watched(client_id)
        monkeypatch.setattr(PromptServer, "instance", server, raising=False)
        return server

    return put


def test_a_counter_says_where_it_is_and_what_cancel_leaves(pack, watched):
    server = watched()
    with CurrentNodeContext("prompt", "12:5"):
        pack.host.text.Counter()(3, 3, "loss 0.5000")
        pack.host.text.Counter("pair", kept="the pairs so far are in a.csv")(2, 2)
    (event, first, page), (_, second, _) = server.sent
    assert (event, page) == ("diffstyler.words", "page")
    assert first == {
        "node": "12:5",
        "text": "step 3 of 3, loss 0.5000, 0 s left",
        "cancelled": "cancelled at step 3 of 3, nothing saved",
    }
    assert second["cancelled"] == "cancelled at pair 2 of 2, the pairs so far are in a.csv"


def test_the_time_left_is_that_of_the_steps_so_far(pack, watched, monkeypatch):
    server, now = watched(), iter([100.0, 130.0])
    monkeypatch.setattr(pack.host.text.time, "monotonic", lambda: next(now))
    with CurrentNodeContext("prompt", "1"):
        pack.host.text.Counter()(2, 10)
    assert server.sent[0][1]["text"] == "step 2 of 10, 2 min 0 s left"


def test_before_the_first_nothing_is_said_of_the_time_left(pack, watched):
    server = watched()
    with CurrentNodeContext("prompt", "1"):
        pack.host.text.Counter("pair")(0, 10)
    assert server.sent[0][1]["text"] == "pair 0 of 10"


def test_nothing_is_sent_where_nobody_watches(pack, watched):
    outside = watched()
    pack.host.text.say("step 1 of 2")
    assert outside.sent == [], "no node is running"
    unseen = watched(client_id=None)
    with CurrentNodeContext("prompt", "1"):
        pack.host.text.say("step 1 of 2")
    assert unseen.sent == [], "queued by a program: it would go to every page that is open"


@pytest.mark.parametrize(("seconds", "words"), [(0.0, "0 s"), (59.2, "1 min 0 s"), (44.1, "45 s"), (190, "3 min 10 s")])
def test_durations(pack, seconds, words):
    assert pack.host.text.duration(seconds) == words


def test_every_run_of_the_sampling_machinery_counts(shared_bench, watched):
    server = watched()
    with CurrentNodeContext("prompt", "7"):
        shared_bench.invert(steps=4, reconstruct=True)
    places = [data["cancelled"].split(",")[0] for event, data, _ in server.sent if event == "diffstyler.words"]
    expected = [f"cancelled at {name} {i} of 4" for name in ("step", "reconstruction step") for i in (1, 2, 3, 4)]
    assert places == expected
