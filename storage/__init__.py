"""Rows and statements. Nothing here knows a rule, and nothing here commits but `database.transaction`."""
