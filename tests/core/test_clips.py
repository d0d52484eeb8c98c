"""demo/clips.md: the prompts are the shipped workflow's, changed where they should be; figures come from the tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import clips_prompt as cp
from tools import clips_tables as tables
from tools.workflow_api import find_nodes

KEPT = Path(__file__).parents[1] / "workflows" / f"{cp.WORKFLOW}.json"
STEADY = """frame,next_frame,difference,content_difference,warping_error,content_warping_error,seen,not_available
1,2,0.02,0.004,0.002,0.0002,0.9,
2,3,0.04,0.006,0.004,0.0004,0.9,
3,4,,,,,,no pixel of it is found again in the next frame
"""
FIGURES = """result,metric,better,against,region,value,not_available
1,edges,higher,content,whole,0.4,
2,edges,higher,content,whole,0.6,
1,edges,higher,content,left half,0.1,
1,total_variation,,,whole,0.02,
1,gram_filters,lower,style,whole,0.5,
1,lpips,lower,content,whole,,not installed
"""


@pytest.fixture
def workflow():
    return json.loads(KEPT.read_text(encoding="utf-8"))


@pytest.mark.parametrize("looking", cp.LOOKINGS)
def test_a_prompt_is_the_workflows_with_another_clip_style_and_looking(workflow, looking):
    before = json.dumps(workflow)
    result = cp.Result(cp.CONTENTS[1], cp.STYLES[1], looking)
    api = cp.clip_prompt(workflow, result)
    assert json.dumps(workflow) == before
    (sampler,), shared = find_nodes(api, "DiffStyler_InjectedSampler"), find_nodes(api, "DiffStyler_ShareFrames")
    model = api[sampler]["inputs"]["model"][0]
    if looking == cp.ALONE:
        assert shared == []
        assert api[model]["class_type"] == "CheckpointLoaderSimple"
    else:
        assert [model] == shared
        assert api[model]["inputs"]["look_at"] == looking
    assert api[find_nodes(api, "Content clip")[0]]["inputs"]["picture"] == cp.CONTENTS[1]
    assert api[find_nodes(api, "Prompt")[0]]["inputs"]["text"] == cp.STYLES[1].learnt
    links = {value[0] for node in api.values() for value in node["inputs"].values() if isinstance(value, list)}
    assert links <= set(api)


def test_results_of_one_content_stand_together():
    results = list(cp.results_of(2, 3))
    assert len(results) == 2 * 3 * len(cp.LOOKINGS)
    assert [r.content for r in results] == sorted((r.content for r in results), key=cp.CONTENTS.index)
    assert len({r.name for r in results}) == len(results)


def test_the_page_and_the_table(tmp_path):
    rows = []
    for looking, factor in zip(cp.LOOKINGS, (1.0, 0.5, 2.0), strict=True):
        row = tables.row_of("bay", "oil painting", looking, STEADY, FIGURES, 7.0)
        assert row[3:] == pytest.approx((0.03, 0.005, 0.003, 0.0003, 0.5, 0.02, 0.5, 7.0))
        rows.append(row._replace(difference=row.difference * factor))
    page = tables.report(rows, "1 min on a machine", "python3 tools/dev.py compare clips")
    assert "- *first*: steadier in 1 of 1 clips; warped-frame difference -50.0 %, total variation +0.0 %" in page
    assert "- *all*: steadier in 0 of 1 clips; warped-frame difference +100.0 %" in page
    assert page.count("| none |") == 2
    tables.write_rows(tmp_path / "clips.csv", rows)
    lines = (tmp_path / "clips.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("content,style,looking,difference,floor,")
    assert len(lines) == 4
