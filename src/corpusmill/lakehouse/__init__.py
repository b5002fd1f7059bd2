"""Tables, commits, audit branches and upkeep of the Iceberg lakehouse; only `transactions` ever changes a table."""
