"""Layer lists as people write them, and the sites of a UNet."""

from __future__ import annotations

import pytest

from diffstyler_core.injection.sites import Site, UNetLayout, format_layers, parse_layers

LAYOUT = UNetLayout({"feature": {0: 1, 1: 1, 2: 1}, "self-attention": {1: 1, 2: 3}})


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("4-11", tuple(range(4, 12))),
        ("4,6-8", (4, 6, 7, 8)),
        (" 8 , 6 - 7,4 ", (4, 6, 7, 8)),
        ("", ()),
        (" , ,", ()),
        ("5", (5,)),
        ("5-5", (5,)),
        ("3,3,2-4", (2, 3, 4)),
        ("0", (0,)),
        ("999", (999,)),
    ],
)
def test_parse_layers(text, layers):
    assert parse_layers(text) == layers


@pytest.mark.parametrize("text", ["a", "4-", "-4", "4--6", "4;6", "4 6", "1.5", "4-6-8", "1000", "all", "4\n5"])
def test_parse_layers_refuses(text):
    with pytest.raises(ValueError, match=r"feature_layers must be written like '4-11'") as error:
        parse_layers(text, "feature_layers")
    assert repr(text) in str(error.value)


def test_parse_layers_refuses_a_backward_range():
    with pytest.raises(ValueError, match="'8-4' runs backwards in '2,8-4'; write '4-8'"):
        parse_layers("2,8-4")


@pytest.mark.parametrize("text", ["", "4", "4-11", "4,6-8", "0,2,4", "0-1,3-4"])
def test_format_reads_back(text):
    assert format_layers(parse_layers(text)) == text


def test_format_sorts_and_joins():
    assert format_layers((8, 4, 7, 6, 4)) == "4,6-8"


def test_sites_of_a_layer_are_all_its_blocks():
    assert LAYOUT.sites("self-attention", (1, 2)) == (
        Site("self-attention", 1),
        Site("self-attention", 2, 0),
        Site("self-attention", 2, 1),
        Site("self-attention", 2, 2),
    )
    assert LAYOUT.sites("feature", ()) == ()


@pytest.mark.parametrize(
    ("kind", "layers", "message"),
    [
        ("self-attention", (0, 1), "self-attention layers 0 do not exist .* it has self-attention layers 1-2"),
        ("feature", (2, 3, 4, 9), "feature layers 3-4,9 do not exist .* it has feature layers 0-2"),
        ("cross-attention", (1,), "it has cross-attention layers none"),
    ],
)
def test_missing_layers_list_what_exists(kind, layers, message):
    with pytest.raises(ValueError, match=message):
        LAYOUT.sites(kind, layers)


@pytest.mark.parametrize(
    ("site", "text"),
    [(Site("feature", 4), "feature of layer 4"), (Site("self-attention", 1, 2), "self-attention of layer 1, block 2")],
)
def test_sites_read_as_words(site, text):
    assert str(site) == text
