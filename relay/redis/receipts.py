"""Receipts of whispers: the sender's node waits for the target's node to say what became of a whisper. No I/O."""

import asyncio
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from relay.redis.signals import Receipts, Whisper


class PendingReceipts:
    """The receipts that are waited for."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[bool]] = {}

    @contextmanager
    def expect(self) -> Iterator[tuple[str, "asyncio.Future[bool]"]]:
        """Yield a new receipt, and a future: True if the whisper was taken, False if its session is gone."""
        receipt = secrets.token_hex(8)
        future = self._waiting[receipt] = asyncio.get_running_loop().create_future()
        try:
            yield receipt, future
        finally:
            del self._waiting[receipt]

    def settle(self, receipts: Iterable[str], *, taken: bool) -> list[str]:
        """End the waits for receipts. Returns those that nobody here waits for."""
        unknown = []
        for receipt in receipts:
            future = self._waiting.get(receipt)
            if future is None:
                unknown.append(receipt)
            elif not future.done():
                future.set_result(taken)
        return unknown


class Answers:
    """What is to be told to the senders of whispers: one signal for each of their nodes."""

    def __init__(self) -> None:
        self._by_node: dict[str, Receipts] = {}

    def add(self, whisper: Whisper, *, taken: bool) -> None:
        """Answer a whisper, if its sender's node waits for that."""
        if whisper.receipt:
            receipts = self._by_node.setdefault(whisper.reply_to, Receipts([], []))
            (receipts.taken if taken else receipts.gone).append(whisper.receipt)

    def take(self) -> list[tuple[str, Receipts]]:
        """Return the nodes and their answers, each once."""
        answers, self._by_node = self._by_node, {}
        return list(answers.items())
