"""The Lua scripts, each one atomic step. The file of a script has its name."""

import hashlib
import re
from copy import copy
from functools import cached_property
from importlib.resources import files
from typing import Self


class Script:
    """A Lua script, and the SHA-1 by which Redis runs it."""

    def __init__(self, name: str, *, preludes: tuple[str, ...] = ()) -> None:
        self.name = name
        self.text = "\n".join(_read(part) for part in (*preludes, name))
        self.sha = _sha(self.text)

    @cached_property
    def sharded(self) -> Self:
        """The same script for a Cluster with sharded publish/subscribe: it publishes within the shard of its keys."""
        script = copy(self)
        script.text = self.text.replace("'PUBLISH'", "'SPUBLISH'")
        script.sha = _sha(script.text)
        return script


def _sha(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _read(name: str) -> str:
    return files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8")


def _directory(name: str) -> Script:
    return Script(name, preludes=("directory",))


def _channel(name: str) -> Script:
    return Script(name, preludes=("channel",))


def _holes(name: str) -> Script:
    return Script(name, preludes=("holes",))


CLUSTER = _directory("cluster")
ENROLL = _directory("enroll")
SERVER_INVITE = _directory("server_invite")
USER_REMOVE = _directory("user_remove")
MACHINE_ADD = _directory("machine_add")
MACHINE_REMOVE = _directory("machine_remove")
ACQUAINTANCES = _directory("acquaintances")
CHANNEL_CREATE = _directory("channel_create")
CHANNEL_LIST = _directory("channel_list")
JOIN = _directory("join")
ADMINISTER = _directory("administer")
INSPECT = _directory("inspect")
INVITE_REVOKE = _directory("invite_revoke")
WHO_MAY_LOOK = _directory("who_may_look")
REVIEW = _directory("review")
SETTLED = _directory("settled")
PRESENCE_KEEP = _directory("presence_keep")
PRESENCE_DROP = _directory("presence_drop")
PRESENCE_LOSE = _directory("presence_lose")

LEASE_TAKE = Script("lease_take")
LEASE_KEEP = Script("lease_keep")
LEASE_BURY = Script("lease_bury")
SUBSCRIBERS_KEEP = Script("subscribers_keep")
SUBSCRIBERS_OF = Script("subscribers_of")
SUBSCRIBERS_BURY = Script("subscribers_bury")
ENTER = Script("enter", preludes=("holes", "channel"))
POST = _holes("post")
PAGE = _channel("page")
HISTORY = _channel("history")
MARK = Script("mark")
HOLE = _holes("hole")
PROMISE = Script("promise")
FENCE = Script("fence")
INBOX_SEND = Script("inbox_send")
INBOX_KEEP = Script("inbox_keep")
INBOX_CLOSE = Script("inbox_close")
INBOX_DROP = Script("inbox_drop")
ANNOUNCE = Script("announce")
ERASE = Script("erase")
BEAT = Script("beat")
EVICT = Script("evict")
ALIVE = Script("alive")

ALL = tuple(each for each in list(globals().values()) if isinstance(each, Script))
NAMES = tuple(each.name for each in ALL)
"""The names of all scripts."""

CHANNEL_OPERATIONS = tuple(re.findall(r"^operations\.(\w+) = function", ADMINISTER.text, re.MULTILINE))
"""The names of the operations that administer.lua carries out."""
