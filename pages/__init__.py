"""What people see. Each file is one page, read from top to bottom; pages ask `core` and never the store."""
