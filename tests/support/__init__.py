"""Code that several tests share: servers to run against and ways to wait."""
