"""The bridge between Claude Code (MCP over stdio) and relays."""
