"""Names of the XComs that tasks leave for each other beside their return values."""

ERROR_KEY = "error"
"""The message of a failing task, for `ReportRunOperator` and for the demo's last lines."""
