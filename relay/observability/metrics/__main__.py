"""`python -m relay.observability.metrics PAGE`: write the table of all metrics between the markers of a page."""

import sys
from pathlib import Path

from relay.observability.metrics.reference import written_into


def main() -> None:
    page = Path(sys.argv[1])
    page.write_text(written_into(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
