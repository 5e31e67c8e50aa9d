"""A Redis Cluster: one client for each master, the map of the slots, and the subscriptions at each master."""
