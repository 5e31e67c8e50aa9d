"""Delivery: from a channel's topic or its log to the sessions of this node that joined it, in one order."""
