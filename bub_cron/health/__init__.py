"""How the whole stands: `status` at a glance, `doctor` link by link."""
