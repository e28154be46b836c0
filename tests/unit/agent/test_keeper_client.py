"""Finding the keeper, also one that is just ending (contract SRV-3)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.lib.site import SOURCE

_AGENT = """
import sys
from pathlib import Path
from scitq.agent.executors.bare import BareExecutor
from scitq.agent.keeper.client import KeeperClient
from scitq.agent.loop import Loop
keeper = KeeperClient(Path(sys.argv[1]))
print(BareExecutor(Loop(), keeper, None).adopt())
"""


def test_a_keeper_that_ends_while_it_is_called_is_replaced(tmp_path: Path) -> None:
    """An idle keeper ends when its agent was killed; the next agent's connection may be in its queue by then."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "keeper-1.sock"))
    listener.listen(2)
    words = [sys.executable, "-c", _AGENT, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(SOURCE)}) as agent:
        connection, _ = listener.accept()
        listener.close()
        connection.close()
        out, _ = agent.communicate(timeout=60)
    assert (agent.returncode, out) == (0, b"[]\n")
