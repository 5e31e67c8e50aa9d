"""`python -m conclave_conformance`, for a checkout in which the program is not installed."""

from conclave_conformance.command import main

if __name__ == "__main__":
    main(prog_name="conclave-conformance")
