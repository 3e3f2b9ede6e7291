"""What bub-cron costs: a module per figure, each a command (`python -m benchmarks.idle_tick`), and all of them at once
(`python -m benchmarks`, or `make bench`)."""
