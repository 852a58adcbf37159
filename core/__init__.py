"""The rules of Countersign: what a case is, how it moves, what a person and a worker may do with it."""
