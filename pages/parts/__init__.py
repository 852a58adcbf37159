"""What pages are put together from: functions that take data and, where they hold widgets, a `key`."""
