"""A commented scitq.yaml with fresh secrets."""

from __future__ import annotations

import secrets

from scitq.config.schema import DEFAULT_PORT

_TEXT = """\
# scitq.yaml: the configuration of a scitq server. It holds secrets: keep its mode at 0600.
# Every key and its default: docs/configuration.md. Secrets may come from the environment: ${{VARIABLE}}.

scitq:
  # What users set in SCITQ_SERVER, together with the port.
  server_fqdn: {fqdn}
  # Two ports are used: this one, and the next one, which does nothing but tell the server's public key.
  port: {port}
  # Address to listen on: 127.0.0.1 for this machine alone, '*' for all.
  bind: '{bind}'
  # Database, logs and keys. A local disk is best.
{data_dir}
  admin_user: {admin}
  # Made by `scitq hashpassword`; keep the single quotes.
  admin_hashed_password: '{hashed}'
  # Signs the tokens of users: a new one logs everybody out.
  token_secret: '{token_secret}'
  # What workers show. `scitq agent` takes it from this file, or from --token-file.
  worker_token: '{worker_token}'
  # How long a token of `scitq login` lives.
  # token_ttl: 30d
  # Output kept of one task.
  # max_task_log: 10G

# Rules for workers.
worker: {{}}
#   file_roots: [/data]         # folders of the worker's disk that file:// URIs may name
#   cache_size: 200G            # most bytes of shared resources kept; else half of the disk

# Storages, by the name that URIs use (s3://bucket/…), with the options of rclone.
rclone:{storages}
#   s3:
#     type: s3
#     provider: AWS
#     region: eu-west-3
#     access_key_id: ${{AWS_ACCESS_KEY_ID}}
#     secret_access_key: ${{AWS_SECRET_ACCESS_KEY}}

# Credentials of private image registries.
registries: {{}}
#   registry.example.org:
#     username: robot
#     password: ${{REGISTRY_PASSWORD}}

# Where recruiters get workers: slurm, ec2, openstack, … (docs/providers.md).
providers: {{}}
"""


def render(
    *,
    hashed_password: str,
    fqdn: str = "localhost",
    port: int = DEFAULT_PORT,
    bind: str = "127.0.0.1",
    data_dir: str = "",
    admin: str = "admin",
    store: str = "",
) -> str:
    """The text of a new configuration; `data_dir` empty: the user's data folder; `store`: a folder for the storage `store:`, if any."""
    return _TEXT.format(
        fqdn=fqdn,
        port=port,
        bind=bind,
        storages=f"\n  # A folder of this machine, for store://… of workers that run here.\n  store: {{type: local, root: '{store}'}}"
        if store
        else " {}",
        data_dir=f"  data_dir: '{data_dir}'" if data_dir else "  # data_dir: /var/lib/scitq",
        admin=admin,
        hashed=hashed_password,
        token_secret=secrets.token_urlsafe(32),
        worker_token=secrets.token_urlsafe(32),
    )
