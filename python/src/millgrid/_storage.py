"""S3, for what is too large to travel along. boto3 is imported when it is first needed."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._config import Settings
from ._errors import NotFound, StorageError
from ._views import OutputObject
from ._wire import jobs, workers

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined,unused-ignore]

#: Where `millgrid dev` keeps what goes through S3.
DEV_STORE = "s3://dev/.calls/"
#: The S3 endpoint of `dev` listens so far above its first gRPC port.
_DEV_S3_OFFSET = 2000
_ENV_HINT = (
    "AWS_ENDPOINT_URL_S3, AWS_REGION and credentials come from the environment; "
    '`eval "$(millgrid dev env)"` sets them for a local grid'
)


class Storage:
    """One client's way to S3. Endpoint, region and credentials are those of the AWS SDK's own environment."""

    def __init__(self, settings: Settings, store: str | None = None) -> None:
        self._settings = settings
        self._store = store or os.environ.get("MILLGRID_STORE") or (DEV_STORE if settings.dev else "")
        self._s3: Any = None
        self._pid = 0

    @property
    def configured(self) -> bool:
        """Whether there is a place for large things."""
        return bool(self._store)

    @property
    def prefix(self) -> str:
        """Of all objects of this package, with a slash at its end.

        Raises:
            StorageError: None is configured.
        """
        if not self._store.startswith("s3://"):
            hint = "give `Client(store='s3://bucket/prefix/')`, or set MILLGRID_STORE"
            raise StorageError("no place on S3 is configured for what is larger than 64 KiB", hint=hint, field="store")
        return self._store.rstrip("/") + "/"

    def client(self) -> Any:
        """The boto3 client; one per process."""
        if self._s3 is None or self._pid != os.getpid():
            try:
                import boto3
                from botocore.config import Config
            except ImportError as error:
                hint = "install it with `pip install 'millgrid[s3]'`, or keep arguments and results under 64 KiB"
                raise StorageError("S3 needs boto3, which is not installed", hint=hint, reason="NO_BOTO3") from error
            own = self._own_endpoint()
            style = "path" if own or any(os.environ.get(f"AWS_ENDPOINT_URL{end}") for end in ("", "_S3")) else "auto"
            config = Config(s3={"addressing_style": style}, retries={"mode": "standard", "max_attempts": 5})
            self._s3 = boto3.client("s3", config=config, **own)
            self._pid = os.getpid()
        return self._s3

    def _own_endpoint(self) -> dict[str, str]:
        """That of the default `millgrid dev`, unless the environment names another."""
        state = self._settings.dev_state
        named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if state is None or (named and not self._settings.dev_storage):
            return {}
        try:
            base = json.loads((state / "dev.json").read_text())["ports"]["base"]
            access, secret = (state / "s3-credentials").read_text().split()
        except (OSError, ValueError, KeyError) as error:
            raise StorageError(f"the S3 endpoint of `millgrid dev` in `{state}` is not known: {error}") from error
        return {
            "endpoint_url": f"http://127.0.0.1:{base + _DEV_S3_OFFSET}",
            "region_name": "us-east-1",
            "aws_access_key_id": access,
            "aws_secret_access_key": secret,
        }

    def put(self, url: str, parts: Sequence[Buffer]) -> None:
        """Stores bytes, which are not copied as a whole.

        Raises:
            StorageError: S3 said no.
        """
        bucket, key = _split(url)
        s3 = self.client()
        try:
            s3.upload_fileobj(_Reader(parts), bucket, key)
        except Exception as error:
            raise _failure("write", url, error) from error

    def get(self, url: str) -> tuple[int, Any]:
        """An object's length and its bytes as a stream.

        Raises:
            NotFound: There is no such object.
            StorageError: S3 said no.
        """
        bucket, key = _split(url)
        s3 = self.client()
        try:
            got = s3.get_object(Bucket=bucket, Key=key)
            return got["ContentLength"], got["Body"]
        except Exception as error:
            raise _failure("read", url, error) from error

    def read(self, url: str) -> bytes:
        """A small object, whole."""
        _, body = self.get(url)
        try:
            data: bytes = body.read()
        except Exception as error:
            raise _failure("read", url, error) from error
        return data

    def manifest(self, stored: jobs.StoredManifest) -> list[OutputObject]:
        """The outputs of a task that has too many for the log."""
        manifest = workers.Manifest.FromString(self.read(stored.url))
        etags = workers.Published.FromString(self.read(stored.etags_url)).etags if stored.etags_url else []
        return [
            OutputObject(stored.index, stored.attempt, entry.path, f"s3://{entry.bucket}/{entry.key}", entry.size,
                         etags[at] if at < len(etags) else "")
            for at, entry in enumerate(manifest.entries)
        ]


class _Reader(io.RawIOBase):
    """Reads several buffers as one file, without joining them."""

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self._parts = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
        self._size = sum(part.nbytes for part in self._parts)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        wanted = self._size - self._at if size is None or size < 0 else min(size, self._size - self._at)
        pieces, start = [], 0
        for part in self._parts:
            low = max(0, self._at - start)
            if wanted > 0 and low < part.nbytes:
                piece = part[low : low + wanted]
                pieces.append(piece)
                wanted -= piece.nbytes
                self._at += piece.nbytes
            start += part.nbytes
        return b"".join(pieces)


def _split(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket or not key:
        raise StorageError(f"`{url}` is not `s3://bucket/key`")
    return bucket, key


def _failure(what: str, url: str, error: Exception) -> Exception:
    code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
    if code in ("NoSuchKey", "404", "NotFound"):
        return NotFound(f"there is no object {url}", reason="NO_SUCH_KEY")
    return StorageError(f"can't {what} {url}: {error}", hint=_ENV_HINT, reason=code)
