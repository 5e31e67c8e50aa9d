"""Everything that knows Redis. No Redis error leaves this package: callers see `StoreUnavailable` or a domain error."""
