"""The sessions of this node, and the frames that wait for them."""
