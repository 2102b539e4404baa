"""The config file: from YAML to policy, every error with its line."""
