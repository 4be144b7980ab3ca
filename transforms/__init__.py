"""The built-in transforms, one module a provider: the examples a user copies, and may import to build on."""
