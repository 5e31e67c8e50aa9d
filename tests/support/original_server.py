"""A server like the original's, which does not check names: users and channels may have any name.

Our own relay refuses names that hurt. A bridge also meets servers that do not.
"""

from collections.abc import Iterator
from itertools import count

from conclave.model import ChannelInfo, Payload, Plain, SessionPath
from conclave.protocol.v1 import admin
from conclave.protocol.v1.frames import (
    Ack,
    Admin,
    ChannelList,
    ChannelMsg,
    Error,
    Frame,
    History,
    HistoryMessage,
    InviteList,
    Join,
    Joined,
    Leave,
    ListChannels,
    MalformedFrame,
    NotFound,
    Ping,
    Pong,
    Presence,
    ProtocolError,
    RawPayload,
    ReadSince,
    UserList,
    Whisper,
    Who,
)
from tests.support.scripted_server import Connection, ScriptedServer

PAGE_ROWS = 500


class OriginalServer:
    """The state of a `ScriptedServer` that acts as an original: the sessions and messages of each channel."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.online: list[SessionPath] = []
        """The sessions in presence besides the connected ones."""
        self.channels: list[ChannelInfo] = []
        """The channels of a listing; any other one can be joined all the same."""
        self.users: tuple[str, ...] = ()
        """The users in every ACL and in every list of bans."""
        self.invites: InviteList = InviteList(())
        self.refusal: ProtocolError | None = None
        """The reply to every request while it is set, except for pings."""
        self._joined: dict[str, list[Connection]] = {}
        self._gone: set[str] = set()
        self._said: dict[str, list[HistoryMessage]] = {}
        self._times: Iterator[int] = count(1_700_000_000_000)
        server.answer = self._answer

    async def post(self, channel: str, sender: SessionPath, text: str) -> None:
        """Post as another user: it is delivered to the sessions in the channel, and kept."""
        self._keep(channel, sender, Plain(text))
        for connection in self._joined.get(channel, []):
            await connection.send(ChannelMsg(channel, sender, Plain(text)))

    async def whisper(self, sender: SessionPath, text: str) -> None:
        connection = self.server.connections[-1]
        await connection.send(Whisper(sender, connection.path, Plain(text)))

    def rename(self, old: str, new: str) -> None:
        """Give a channel another name, which sessions see by its next message only."""
        self._gone.add(old)
        self._gone.discard(new)
        self._joined[new] = self._joined.pop(old, [])
        self._said[new] = self._said.pop(old, [])

    def _keep(self, channel: str, sender: SessionPath, payload: Payload | RawPayload) -> None:
        self._said.setdefault(channel, []).append(HistoryMessage(sender, next(self._times), payload))

    async def _answer(self, connection: Connection, frame: Frame) -> None:
        if isinstance(frame, Ping):
            await connection.send(Pong())
        elif self.refusal is not None:
            await connection.send(Error(self.refusal))
        elif isinstance(frame, ChannelMsg):
            self._keep(frame.channel, connection.path, frame.payload)
            await connection.send(Ack())
        else:
            await connection.send(self._reply(connection, frame))

    def _reply(self, connection: Connection, frame: Frame) -> Frame:
        match frame:
            case Join(channel) if channel in self._gone:
                return Error(NotFound(f"channel `{channel}` not found"))
            case Join(channel):
                self._joined[channel] = [connection]
                return Joined(channel)
            case Leave(channel):
                self._joined.pop(channel, None)
                return Ack()
            case Who(channel):
                return Presence(channel, (*self.online, connection.path))
            case ListChannels():
                return ChannelList(tuple(self.channels))
            case ReadSince(channel, since_ms):
                rows = [row for row in self._said.get(channel, []) if row.ts_ms > since_ms]
                return History(channel, tuple(rows[:PAGE_ROWS]))
            case Admin(op):
                return self._ruled(op)
            case Whisper():
                return Ack()
            case _:
                return Error(MalformedFrame("unexpected frame from client"))

    def _ruled(self, op: admin.AdminOp) -> Frame:
        match op:
            case admin.AclList() | admin.BanList():
                return UserList(self.users)
            case admin.InviteListOp():
                return self.invites
            case _:
                return Ack()
