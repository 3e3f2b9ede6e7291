"""The side that cron or systemd runs. Never imports bub, nor the gateway side."""
