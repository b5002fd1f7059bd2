"""The only place that joins stages to the lakehouse; `chain` is its front for operators and the command line."""
