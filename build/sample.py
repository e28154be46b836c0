"""Print packaging/scitq.yaml, the commented sample: what `scitq config init` writes, with placeholders for the secrets."""

import re
import sys

from scitq.config import sample


def render() -> str:
    """The text of the sample."""
    text = sample.render(hashed_password="", data_dir="/var/lib/scitq", fqdn="scitq.example.org", bind="*")
    return re.sub(r"^(  (?:token_secret|worker_token)): .*$", r"\1: ''", text, flags=re.MULTILINE)


if __name__ == "__main__":
    sys.stdout.write(render())
