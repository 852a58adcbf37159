"""The versions of the schema, in order; `storage.schema` runs them."""
