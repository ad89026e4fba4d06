"""A store in an S3 bucket, Amazon's or any that speaks the same protocol.

How to reach it is in the environment: see `pipelines/settings.py`. The keys need s3:GetObject, s3:PutObject,
s3:DeleteObject, s3:AbortMultipartUpload and s3:ListMultipartUploadParts on the prefix, s3:ListBucket and
s3:ListBucketMultipartUploads on the bucket. Without s3:ListBucket, S3 says "forbidden" where it means "not there".
"""

from __future__ import annotations

import hashlib
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ..digests import digest_bytes
from ..errors import AlreadyInStore, NotInStore, PromptmintError, StoreError, TransientError
from ..settings import S3Settings, s3_settings
from ..store import uploads
from ..store.ranged import TRIES, About, fetch
from ..store.store import Item, checked_key, checked_prefix

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PART_BYTES = 16 * 1024 * 1024  # files above it are sent in parts of this size, several at a time
_CONNECTIONS = 16  # kept open; whoever asks for more at a time opens and closes one for each
_CHUNK_BYTES = 256 * 1024  # what is taken at once of what has come in
# Answers that may differ next time. 412, outside `create`: the object was replaced between two pieces of a download.
_PASSING_STATUSES = {408, 409, 412, 429, 500, 502, 503, 504}
_PASSING_CODES = {"IncompleteBody", "RequestTimeout", "SlowDown", "Throttling"}


class S3Store:
    """A store under `s3://BUCKET/PREFIX`; no request leaves before the first call."""

    def __init__(self, uri: str) -> None:
        from boto3.s3.transfer import TransferConfig

        self.bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not _BUCKET.fullmatch(self.bucket):
            raise StoreError(
                f"Cannot open the store {uri!r}: {self.bucket!r} cannot be a bucket's name (3 to 63 lower-case "
                "letters, digits, dots and hyphens). A store in a bucket is 's3://BUCKET/PREFIX'."
            )
        self._prefix = checked_key(prefix.rstrip("/")) + "/" if prefix.rstrip("/") else ""
        self.uri = f"s3://{self.bucket}/{self._prefix}".rstrip("/")
        self._settings = settings = s3_settings()
        self._client = _connect(settings)
        self._transfer = TransferConfig(multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES)
        self._sums = {"ChecksumAlgorithm": "SHA256"} if settings.checksums == "when_supported" else {}
        self._bucket_seen = False
        self._exclusive = False
        self._probing = threading.Lock()

    def read(self, key: str) -> bytes:
        """The bytes under `key`. Raises `NotInStore`."""
        name = self._name(key)
        with self._errors_about(key):
            data: bytes = self._client.get_object(Bucket=self.bucket, Key=name)["Body"].read()
        return data

    def write(self, key: str, data: bytes) -> None:
        """Put `data` under `key`, replacing what was there."""
        name = self._name(key)
        with self._errors_about(key):
            about = {"sha256": digest_bytes(data)}
            self._client.put_object(Bucket=self.bucket, Key=name, Body=data, Metadata=about, **self._sums)

    def create(self, key: str, data: bytes) -> None:
        """Put `data` under `key` only if nothing is there. Raises `AlreadyInStore`: exactly one of many racers wins.

        Raises:
            StoreError: the server takes a conditional put for a plain one, or does not know it.
        """
        self._name(key)
        with self._probing:
            if not self._exclusive:
                self._probe()
        self._put_if_absent(key, data)

    def upload(self, key: str, path: Path) -> None:
        """Put a file under `key`, replacing what was there."""
        name = self._name(key)
        try:
            with path.open("rb") as file:
                about = {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
                file.seek(0)
                with self._errors_about(key):
                    extra = {"Metadata": about, **self._sums}
                    self._client.upload_fileobj(file, self.bucket, name, ExtraArgs=extra, Config=self._transfer)
        except OSError as error:
            raise StoreError(f"Cannot read {str(path)!r} to put it under {key!r}: {error.strerror}.") from error

    def version(self, key: str) -> str | None:
        """The bucket's own id of what lies under `key`, where it keeps versions. Raises `NotInStore`."""
        with self._errors_about(key):
            version: str | None = self._client.head_object(Bucket=self.bucket, Key=self._name(key)).get("VersionId")
        return None if version == "null" else version

    def download(self, key: str, path: Path) -> None:
        """Write what lies under `key` to `path`, atomically: see ranged.py. Raises `NotInStore`."""
        self._name(key)
        fetch(partial(self._about, key), partial(self._stretch, key), path, self._settings.stall_s)

    def has(self, key: str) -> bool:
        """Whether something lies under `key`."""
        try:
            self.version(key)
        except NotInStore:
            return False
        return True

    def keys(self, prefix: str) -> list[str]:
        """Every key that starts with `prefix` (a string's prefix: `a/b` finds `a/bc`), sorted."""
        return [item.key for item in self.items(prefix)]

    def items(self, prefix: str) -> list[Item]:
        """The same as `keys`, with sizes and times."""
        start = self._prefix + checked_prefix(prefix)
        with self._errors_about(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start)
            found = [
                Item(each["Key"].removeprefix(self._prefix), each["Size"], each["LastModified"])
                for page in pages
                for each in page.get("Contents", ())
            ]
        return sorted(found, key=lambda item: item.key)

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens where it is not there. A bucket that keeps versions keeps the old ones."""
        name = self._name(key)
        with self._errors_about(key):
            self._client.delete_object(Bucket=self.bucket, Key=name)

    def unfinished(self) -> list[Item]:
        """The uploads in parts that nobody completed, each named `KEY?uploadId=ID`, with the bytes that arrived."""
        with self._errors_about(""):
            return uploads.unfinished(self._client, self.bucket, self._prefix)

    def discard(self, unfinished: Item) -> None:
        """Give such an upload up; its parts are removed."""
        with self._errors_about(unfinished.key):
            uploads.discard(self._client, self.bucket, self._prefix, unfinished)

    def _name(self, key: str) -> str:
        return self._prefix + checked_key(key)

    def _put_if_absent(self, key: str, data: bytes) -> str | None:
        """The version id of the object made; `AlreadyInStore` where there was one."""
        from botocore.exceptions import ClientError

        name, writer = self._name(key), uuid.uuid4().hex
        about = {"sha256": digest_bytes(data), "writer": writer}
        with self._errors_about(key):
            try:
                made = self._client.put_object(
                    Bucket=self.bucket, Key=name, Body=data, IfNoneMatch="*", Metadata=about, **self._sums
                )
            except ClientError as error:
                if _status(error) == 501:
                    raise StoreError(self._no_ledger("does not know conditional puts")) from error
                if _status(error) != 412:
                    raise
                # boto3 asks again when an answer is lost on the way, and may then meet the object it made itself.
                made = self._client.head_object(Bucket=self.bucket, Key=name)
                if made["Metadata"].get("writer") != writer:
                    raise AlreadyInStore(f"Something lies under {key!r} in {self.uri} already.") from None
        version: str | None = made.get("VersionId")
        return version

    def _probe(self) -> None:
        """Find out, with a key of its own, whether the server refuses to create what is there already."""
        key, versions = f"probe/{uuid.uuid4().hex}", []
        try:
            versions.append(self._put_if_absent(key, b"first"))
            versions.append(self._put_if_absent(key, b"second"))
        except AlreadyInStore:
            self._exclusive = True
        finally:
            for version in versions:
                which = {"VersionId": version} if version else {}
                with suppress(PromptmintError), self._errors_about(key):
                    self._client.delete_object(Bucket=self.bucket, Key=self._name(key), **which)
        if not self._exclusive:
            raise StoreError(self._no_ledger("ignores If-None-Match, so the last of two writers would win"))

    def _no_ledger(self, why: str) -> str:
        return (
            f"{self.uri} on {self._client.meta.endpoint_url} cannot hold the ledger: the server {why}. Everything else "
            "can stay there. Set PROMPTMINT_LEDGER to 'file:///FOLDER' on a disk that all promoters share, or to "
            "'s3://BUCKET/PREFIX' on a server with conditional puts."
        )

    @cached_property
    def _reader(self) -> Any:
        """A client for downloads, which try again in their own way."""
        wait_s = self._settings.stall_s / TRIES
        once = {"total_max_attempts": 1}
        return _connect(self._settings, connect_timeout=min(10, wait_s), read_timeout=wait_s, retries=once)

    def _about(self, key: str) -> About:
        """What lies under `key` now."""
        with self._errors_about(key):
            head = self._reader.head_object(Bucket=self.bucket, Key=self._name(key))
        return About(f"{self.uri}/{key}", head["ETag"], head["ContentLength"])

    def _stretch(self, key: str, about: About, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` to `end` under `key`; 412, a `TransientError`, where they were replaced."""
        asked = {"Range": f"bytes={start}-{end - 1}", "IfMatch": about.etag}
        with self._errors_about(key):
            answer = self._reader.get_object(Bucket=self.bucket, Key=self._name(key), **asked)
            if (sent := answer["ContentLength"]) != end - start:
                raise StoreError(f"{about.source}: asked for {end - start:,} bytes, the server sends {sent:,}.")
            # Not boto3's own `read`: it waits until it has all that was asked for, which a trickle never ends.
            with closing(answer["Body"]) as body:
                while chunk := body._raw_stream.read1(_CHUNK_BYTES):
                    yield chunk

    @contextmanager
    def _errors_about(self, key: str) -> Iterator[None]:
        """Inside it, what boto3 raises becomes an error of ours that names the server and what to do."""
        from botocore.exceptions import BotoCoreError, ClientError
        from s3transfer.exceptions import RetriesExceededError
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ClientError as error:
            raise self._refused(error, key) from error
        except (BotoCoreError, RetriesExceededError, HTTPError) as error:
            raise self._unreached(error) from error

    def _refused(self, error: Any, key: str) -> PromptmintError:
        """What to raise for an answer that says no."""
        status, code = _status(error), error.response["Error"].get("Code", "")
        where = f"{self.uri} on {self._client.meta.endpoint_url}"
        what = f"{where} refused {error.operation_name} with {status} {code}"
        if code == "NoSuchBucket" or (status == 404 and not self._has_bucket()):
            return StoreError(
                f"There is no bucket {self.bucket!r} on {self._client.meta.endpoint_url}: create it first."
            )
        if status == 404:
            return NotInStore(f"Nothing lies under {key!r} in {where}.")
        if status in _PASSING_STATUSES or code in _PASSING_CODES:
            return TransientError(f"{what}. Try again in a moment; if it stays so, look at that server.")
        if status == 403:
            return StoreError(f"{what}: check AWS_ACCESS_KEY_ID or AWS_PROFILE, and what these keys may do there.")
        message = error.response["Error"].get("Message", "")
        return StoreError(f"{what} ({message}): check AWS_DEFAULT_REGION, the keys and the PROMPTMINT_S3_* variables.")

    def _unreached(self, error: Exception) -> PromptmintError:
        """What to raise when there was no whole answer, or not even a question."""
        from botocore import exceptions as boto
        from s3transfer.exceptions import RetriesExceededError
        from urllib3.exceptions import HTTPError

        where = f"{self.uri} on {self._client.meta.endpoint_url}"
        broken = (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, RetriesExceededError, HTTPError)
        if isinstance(error, broken) and not isinstance(error, boto.SSLError):
            return TransientError(
                f"Cannot reach {where}: {error}. Check that the server runs, PROMPTMINT_S3_ENDPOINT and the network; "
                "then try again."
            )
        if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)):
            return StoreError(
                f"There are no keys for {where}: {error}. "
                "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
            )
        return StoreError(f"Cannot use {where}: {error}. Check the AWS_* and PROMPTMINT_S3_* variables.")

    def _has_bucket(self) -> bool:
        """Whether the bucket exists: to HEAD, S3 answers the same 404 for a missing object and for a missing bucket."""
        from botocore.exceptions import BotoCoreError, ClientError

        if not self._bucket_seen:
            try:
                self._client.head_bucket(Bucket=self.bucket)
            except ClientError as error:
                return _status(error) != 404  # whoever may not ask is told about the key
            except BotoCoreError:
                return True
            self._bucket_seen = True
        return True


def _connect(settings: S3Settings, **otherwise: Any) -> Any:
    """A boto3 client; it keeps trying for a while, and its own session, so that threads may open stores."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    patience = {"connect_timeout": 10, "read_timeout": 60, "retries": {"mode": "standard"}} | otherwise
    config = Config(
        **patience,
        max_pool_connections=_CONNECTIONS,
        s3={"addressing_style": "path" if settings.path_style else "auto"},
        request_checksum_calculation=settings.checksums,
        response_checksum_validation=settings.checksums,
    )
    try:
        return boto3.session.Session().client("s3", endpoint_url=settings.endpoint, config=config)
    except (BotoCoreError, ValueError) as error:
        raise StoreError(
            f"Cannot speak to S3: {error}. Check PROMPTMINT_S3_ENDPOINT and the AWS_* variables."
        ) from error


def _status(error: Any) -> int:
    """The HTTP status of an answer that says no."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
