"""Programs that work on this checkout, outside of its virtual environment."""
