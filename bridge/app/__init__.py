"""The bridge as a program: composition, and changes of the owner's configuration."""
