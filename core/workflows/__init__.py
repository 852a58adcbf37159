"""One file per kind of work. Whatever class in here derives from `core.workflow.Workflow` is found and offered."""
