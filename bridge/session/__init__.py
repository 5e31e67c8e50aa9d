"""The agent's session: channels joined, messages received and shown, permission levels, untrusted text. Pure."""
