"""The neighbours: platforms that misbehave behind the channels' real classes, and plugins that do so beside us.

What other tests may use: `bot_api.BotApi` (a Bot API for Bub's own Telegram channel), `rigs` (a channel's real class in a
live router, in this process), `hostile` (a plugin for a real gateway whose misdeeds are chosen by a variable).
"""
