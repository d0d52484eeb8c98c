"""Writes tests/workflows: the API prompt of every workflow, as a real server's nodes take it.

    python3 tools/dev.py run -- tools/workflow_fixtures.py

The browser tests hold each against what the real frontend queues; the other tests run from them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))

from tools.pack_server import ROOT, pack_server
from tools.workflow_api import to_api


def main() -> None:
    with pack_server(ROOT / ".host" / "base") as server:
        nodes = server.client.object_info()
    for file in sorted((ROOT / "workflows").glob("*.json")):
        prompt = to_api(json.loads(file.read_text(encoding="utf-8")), nodes)
        kept = ROOT / "tests" / "workflows" / file.name
        kept.write_text(json.dumps(prompt, indent=1) + "\n", encoding="utf-8")
        print(kept)


if __name__ == "__main__":
    main()
