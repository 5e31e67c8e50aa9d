"""The context of a request: the session that asks, and the services that answer."""

import msgspec

from relay.services.accounts import Accounts
from relay.services.channels import Channels
from relay.services.messages import Messages
from relay.services.moderation import Moderation
from relay.services.presence import Presence
from relay.sessions.session import Session


class Services(msgspec.Struct, frozen=True):
    accounts: Accounts
    channels: Channels
    messages: Messages
    moderation: Moderation
    presence: Presence


class RequestContext(msgspec.Struct, frozen=True):
    session: Session
    services: Services
