"""Types that every part of the relay uses: messages, close reasons, the relay's own errors."""
