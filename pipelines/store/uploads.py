"""Uploads in parts that nobody completed: what a killed writer leaves in a bucket, paid for and seen by no reader.

Source: Amazon S3 User Guide, "Uploading and copying objects using multipart upload": the parts stay until the upload is
completed or aborted.
"""

from __future__ import annotations

from typing import Any

from ..store.store import Item

_ID = "?uploadId="  # between the key and the id of an upload


def unfinished(client: Any, bucket: str, prefix: str) -> list[Item]:
    """Every such upload below a prefix, named `KEY?uploadId=ID`, sorted; `written` is when its last part arrived."""
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
    begun = [upload for page in pages for upload in page.get("Uploads", ())]
    found = [_arrived(client, bucket, prefix, upload) for upload in begun if upload["Key"].startswith(prefix)]
    return sorted((item for item in found if item is not None), key=lambda item: item.key)


def discard(client: Any, bucket: str, prefix: str, upload: Item) -> None:
    """Abort an upload that `unfinished` found; nothing happens where it has ended."""
    key, _, upload_id = upload.key.partition(_ID)
    try:
        client.abort_multipart_upload(Bucket=bucket, Key=prefix + key, UploadId=upload_id)
    except client.exceptions.NoSuchUpload:
        return


def _arrived(client: Any, bucket: str, prefix: str, upload: Any) -> Item | None:
    """What has arrived of an upload; None where it has just ended."""
    name, upload_id = upload["Key"], upload["UploadId"]
    try:
        pages = client.get_paginator("list_parts").paginate(Bucket=bucket, Key=name, UploadId=upload_id)
        parts = [part for page in pages for part in page.get("Parts", ())]
    except client.exceptions.NoSuchUpload:
        return None
    seen = max([upload["Initiated"], *(part["LastModified"] for part in parts)])
    return Item(f"{name.removeprefix(prefix)}{_ID}{upload_id}", sum(part["Size"] for part in parts), seen)
