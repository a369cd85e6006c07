"""One TOML file a device, and the schema that reads them."""
