"""Who may ask which prompt: bearer tokens, of which the server knows only the digests.

The file that PROMPTMINT_TOKENS names holds, for every client, a name for the logs, the SHA-256 of its token and the
prompts it may ask; "*" stands for all of them:

    {"clients": [{"name": "support-desk", "sha256": "9f86d081...", "prompts": ["ticket-routing"]}]}

A token is a secret drawn at random and long enough that nobody guesses it (`openssl rand -hex 32`): a plain digest of
such a one tells nothing, and needs neither salt nor a slow hash.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.errors import PromptmintError

ALL = "*"


class Client(BaseModel):
    """One who may ask: `prompts` are names without a version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    prompts: tuple[str, ...]

    def may_ask(self, name: str) -> bool:
        """Whether this client may ask the prompt of this name, in any version."""
        return ALL in self.prompts or name in self.prompts


class Access(BaseModel):
    """Everybody who may ask."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clients: Annotated[tuple[Client, ...], Field(min_length=1)]

    def client(self, authorization: str) -> Client | None:
        """Whose token an Authorization header carries; every known one is compared, whichever fits."""
        scheme, _, token = authorization.partition(" ")
        digest = hashlib.sha256(token.strip().encode("latin-1", "replace")).hexdigest()
        fits = [client for client in self.clients if hmac.compare_digest(client.sha256, digest)]
        return fits[0] if fits and scheme.lower() == "bearer" else None


def read_access(path: Path) -> Access:
    """The clients in a file. Raises `PromptmintError` where it cannot be read as one."""
    try:
        return Access.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise PromptmintError(
            f"PROMPTMINT_TOKENS is {str(path)!r}, which cannot be read as a list of clients: {error}. It must be JSON "
            'like {"clients": [{"name": "support-desk", "sha256": "64 HEX DIGITS", "prompts": ["ticket-routing"]}]}.'
        ) from None


def check_address(host: str, access: Access | None) -> None:
    """Let a server without tokens listen to this machine only. Raises `PromptmintError`."""
    if access is None and not _is_loopback(host):
        raise PromptmintError(
            f"Without tokens a server listens on 127.0.0.1 only, not on {host!r}: everybody there could ask it. Set "
            "PROMPTMINT_TOKENS to a file of clients (docs/guide/serving.md), or leave --host out."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
