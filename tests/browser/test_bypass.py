"""A bypassed or muted Train Style LoRA: the prompt is queued without its LoRA, as with any node of the host's.

The frontend passes a bypassed node's input through to an output of the same type. Where there is none it drops the link
and logs 'No input types match type [...]' as a warning: for the host's own nodes too, whatever takes the output.
"""

from __future__ import annotations

import pytest

from tests.browser.small_graph import SmallGraph

BYPASS, MUTE = 4, 2
WARNING = "No input types match type"
QUEUED = """async ([type, mode]) => {
    nodesOf(type)[0].mode = mode;
    return (await app.graphToPrompt()).output;
}"""


@pytest.fixture
def warnings(page):
    """What the console calls a warning."""
    texts = []

    def listen(message):
        if message.type == "warning":
            texts.append(message.text)

    page.on("console", listen)
    yield texts
    page.remove_listener("console", listen)


def queued(page, server, kind, mode):
    SmallGraph(page, server.client).open()
    return page.evaluate(QUEUED, [kind, mode])


@pytest.mark.parametrize("mode", [BYPASS, MUTE])
def test_the_sampler_is_queued_without_the_lora(page, server, warnings, mode):
    prompt = queued(page, server, "DiffStyler_TrainStyleLoRA", mode)
    page.wait_for_timeout(300)
    assert "DiffStyler_TrainStyleLoRA" not in {node["class_type"] for node in prompt.values()}
    sampler = next(node for node in prompt.values() if node["class_type"] == "DiffStyler_InjectedSampler")
    assert "lora" not in sampler["inputs"]
    assert len([text for text in warnings if WARNING in text]) == (mode == BYPASS)


def test_the_warning_is_the_frontends_and_not_our_types(page, server, warnings):
    queued(page, server, "VAEEncode", BYPASS)
    page.wait_for_timeout(300)
    assert [text for text in warnings if WARNING in text and "[LATENT]" in text]
