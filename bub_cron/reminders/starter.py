"""What `bub-cron init` writes.

Invariants: it is valid as it stands, also with every example switched on, and fires nothing before it is edited.
"""

STARTER = """\
# yaml-language-server: $schema=./reminders.schema.json
# That line lets an editor complete and check this file, once the schema lies beside it:
#     bub-cron schema > reminders.schema.json
#
# After an edit, `bub-cron check` prints every fault and `bub-cron next` shows what fires when. Changes
# count from the next minute on. To try an example, remove the `# ` before its lines.

# Values for every reminder that doesn't set its own: any key but the schedule and the message.
defaults:
  to: telegram:123456789  # channel:chat_id; put your own here (`bub-cron chats` lists them)
  # timezone: Europe/Berlin  # an IANA name; without it, the machine's zone

# Sets of days, for `only` and `except`.
calendars:
  # holidays: {country: DE, subdivision: BE}
  # vacation: {dates: [2036-12-24..2037-01-02]}
  # workdays: {weekdays: mon-fri, except: [holidays, vacation]}

reminders:
  hello:
    enabled: false  # delete this line, or make it true, once `to` is right
    cron: "0 9 * * mon-fri"  # minute, hour, day of month, month, day of week; always in quotes
    text: Good morning.

# A turn of the agent, and its reply in the chat. A long prompt goes on the lines after `|`.
  # standup:
  #   cron: "30 9 * * mon-fri"
  #   prompt: |
  #     Summarise what changed in the repository since yesterday.
  #     At most five lines.

# Once, or at each time of a list.
  # dentist:
  #   at: 2036-12-01 08:30
  #   text: Dentist at 10:00.

# Days and weeks count on the wall clock, from `start` on.
  # bins:
  #   every: 2w
  #   start: 2036-12-01 19:00
  #   until: 2037-12-31
  #   pause_until: 2037-01-10
  #   text: Paper bin.

# What `cron` can't express: the last weekday of the month, five times.
  # invoices:
  #   rrule: FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1
  #   start: 2036-12-01 16:00
  #   times: 5
  #   prompt: Which invoices are open?

# On some days only, of the calendars above.
  # lunch:
  #   cron: "30 11 * * *"
  #   only: workdays
  #   except: [vacation]
  #   text: Lunch.

# Every 30 minutes. With `quiet` the model may answer <no_reply/>, and nothing is sent.
  # inbox:
  #   every: 30m
  #   gate: /usr/local/bin/new-mail --list  # exit 0: run, with this output; 1: skip. If the gateway allows gates
  #   prompt: Anything urgent among these?
  #   quiet: true
  #   tools: [web_fetch]  # all others are off for this turn
  #   max_tokens: 20k  # of one firing
  #   budget: 200k/day  # of this reminder; when it is used up, firings are skipped

# A Bub command, if the gateway allows commands; and the remaining keys, with their default values.
  # backup:
  #   cron: "H 3 * * *"  # H: some minute, always the same one for this name
  #   command: ",backup --now"
  #   session: telegram:123456789  # the same as to
  #   grace: 1h  # how late it may still start; 24h for at
  #   catch_up: latest  # or all: which of the missed fire times to start
  #   overlap: skip  # or queue: when an earlier one still runs
  #   attempts: 1  # starts allowed; 3 for prompt and text
  #   timeout: 10m  # the limit of one attempt
  #   also: [telegram:5]  # the same reply to further chats
  #   alert: telegram:123456789  # who is told when it doesn't work, and when it works again; or none
  #   ping: https://hc-ping.com/your-uuid  # gets a POST after each outcome
  #   mark_late: 10m  # later than that, the message begins with how late it is; or never
  #   delivery: at-most-once  # at-least-once: send again what was not seen to its end
  #   reply: chat  # or agent: the agent sends by itself
"""
