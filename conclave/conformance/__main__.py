"""`python -m conclave.conformance`, where the script is not installed."""

from conclave.conformance.command import main

main()
