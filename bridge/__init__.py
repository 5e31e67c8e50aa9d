"""The bridge: Claude Code in the room (MCP over stdio on one side, the relay on the other)."""
