"""Files of the storages: every request is slow work for the pool, and none touches the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from scitq.broker.context import Ctx, Later
from scitq.broker.dispatch import handles
from scitq.broker.files import FileService
from scitq.protocol.messages import file as m
from scitq.protocol.registry import Reply, Request

M = TypeVar("M", bound=Request)


def _in_pool(message: type[M], work: Callable[[FileService, M], Reply]) -> None:
    @handles(message)
    def handle(ctx: Ctx, request: M) -> Later[Any]:
        service = ctx.broker.files
        return Later(lambda: work(service, request), lambda _ctx, reply: reply)


_in_pool(m.FileList, FileService.list)
_in_pool(m.FileFind, FileService.find)
_in_pool(m.FileSign, FileService.sign)
_in_pool(m.FileStartParts, FileService.start_parts)
_in_pool(m.FileEndParts, FileService.end_parts)
_in_pool(m.FileRead, FileService.read)
_in_pool(m.FileWrite, FileService.write)
_in_pool(m.FileWriteChunk, FileService.write_chunk)
_in_pool(m.FileEndWrite, FileService.end_write)
_in_pool(m.FileDelete, FileService.delete)
_in_pool(m.FileCheck, FileService.check)
_in_pool(m.FileCopy, FileService.copy)
_in_pool(m.FileCopyStatus, FileService.copy_status)
